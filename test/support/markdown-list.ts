// Lists in README files, as prettier lays them out, between two marks that name the script which writes them. Lists, since
// the cells of a table would be hundreds of characters wide.

/** The text with `body` between its marks. Throws if there is no place for it. */
export function between(readme: string, what: string, body: string): string {
  const begin = `<!-- ${what}: begin (npm run compatibility-table) -->`;
  const end = `<!-- ${what}: end -->`;
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end);
  if (from < 0 || to < from) throw new Error(`expected ${begin} and ${end} in the README`);
  return `${readme.slice(0, from)}${begin}\n\n${body}\n\n${readme.slice(to)}`;
}

export interface Item {
  readonly text: string;
  /** A list of its own, one step to the right. */
  readonly below: readonly string[];
}

export function markdownList(items: readonly Item[]): string {
  return items.flatMap(({ text, below }) => [`- ${text}`, ...below.map((line) => `  - ${line}`)]).join('\n');
}
