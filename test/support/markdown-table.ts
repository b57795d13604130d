// Tables of README files, as prettier lays them out, between two marks that name the script which writes them.

/** The text with `body` between its marks. Throws if there is no place for it. */
export function between(readme: string, what: string, body: string): string {
  const begin = `<!-- ${what}: begin (npm run compatibility-table) -->`;
  const end = `<!-- ${what}: end -->`;
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end);
  if (from < 0 || to < from) throw new Error(`expected ${begin} and ${end} in the README`);
  return `${readme.slice(0, from)}${begin}\n\n${body}\n\n${readme.slice(to)}`;
}

export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll('|', '\\|')));
  const widths = head.map((_, column) => Math.max(3, ...all.map((row) => (row[column] ?? '').length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  const [first = [], ...rest] = all;
  return [line(first), line(widths.map((width) => '-'.repeat(width))), ...rest.map(line)].join('\n');
}
