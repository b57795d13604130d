// Reads and writes recorded transcripts of the real programs, `corpus/NAME.txt`: `# name` begins an exchange, `> ` is what was sent, `< `
// what was answered. One byte per character; what is not printable ASCII, and `%`, is written %XX.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Recorded {
  readonly name: string;
  /** In order. Bytes as latin1 text. */
  readonly lines: readonly { readonly sent: boolean; readonly text: string }[];
}

const fileOf = (name: string): string => fileURLToPath(new URL(`corpus/${name}.txt`, import.meta.url));

export function readCorpus(name: string): readonly Recorded[] {
  const found: { name: string; lines: { sent: boolean; text: string }[] }[] = [];
  for (const line of readFileSync(fileOf(name), 'latin1').split('\n')) {
    if (line.startsWith('# ')) found.push({ name: line.slice(2), lines: [] });
    else if (/^[<>] /.test(line)) {
      found.at(-1)?.lines.push({ sent: line.startsWith('>'), text: decode(line.slice(2)) });
    } else if (line !== '') throw new Error(`corpus/${name}.txt: expected '# ', '> ' or '< ', found '${line}'`);
  }
  return found;
}

/** The bytes that went one way, one piece for each exchange. */
export function piecesOf(recorded: readonly Recorded[], way: 'sent' | 'answered'): readonly Buffer[] {
  return recorded
    .map(({ lines }) => lines.filter(({ sent }) => sent === (way === 'sent')).map(({ text }) => text))
    .map((texts) => Buffer.from(texts.join(''), 'latin1'))
    .filter((bytes) => bytes.length > 0);
}

export function writeCorpus(name: string, recorded: readonly Recorded[]): void {
  const exchanges = recorded.map(({ name: title, lines }) =>
    [`# ${title}`, ...lines.map(({ sent, text }) => `${sent ? '>' : '<'} ${encode(text)}`)].join('\n'),
  );
  writeFileSync(fileOf(name), `${exchanges.join('\n\n')}\n`, 'latin1');
}

const encode = (text: string): string =>
  text.replace(/[^ -~]|%/g, (unit) => `%${unit.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
const decode = (text: string): string =>
  text.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
