// The text form of a transcript, which a person can read and diff: one exchange after another, its name, each write of
// the request (`>`), the answer by lines (`<`). Bytes outside printable ASCII are in angle brackets (hexadecimal), and
// so is what is repeated. Answers that are a matter of the machine are recorded as their shape (`<~`).

export interface Recorded {
  readonly name: string;
  readonly sends: readonly string[];
  /** Bytes as latin1 text; or, if `isShape`, lines of `path: types`. */
  readonly answer: string;
  readonly isShape: boolean;
}

export interface Transcript {
  readonly family: string;
  /** `QEMU Guest Agent 7.2.22` */
  readonly agent: string;
  readonly exchanges: readonly Recorded[];
}

/** What every agent says to the 0xFF that ends an exchange, if nothing was left open: not recorded. */
const afterAll = `{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\\uFFFD'"}}\n`;

/** An answer as it is recorded and compared. */
export function trimAnswer(answer: string): string {
  return answer.endsWith(afterAll) ? answer.slice(0, -afterAll.length) : answer;
}

const legend = [
  "# > what is sent, one write per line   < what is answered, by lines   <~ its shape, where values are the machine's",
  '# ⟨0a⟩ a byte   ⟨text×3⟩ text, three times',
  '# Behind each exchange came 0xFF and a sync; the error line that 0xFF alone makes is left out',
  '# Written by `npm run record-transcripts`: not edited by hand.',
];

export function formatTranscript({ family, agent, exchanges }: Transcript): string {
  const blocks = exchanges.map(({ name, sends, answer, isShape }) => {
    const lines = isShape ? answer.split('\n') : answerLines(answer);
    const mark = isShape ? '<~' : '<';
    return [
      `== ${escapeText(name)}`,
      ...sends.map((text) => `> ${escapeText(text)}`),
      ...lines.map((line) => `${mark} ${line}`),
    ].join('\n');
  });
  return `${[`# ${family}: recorded from ${agent}`, ...legend].join('\n')}\n\n${blocks.join('\n\n')}\n`;
}

/** Throws an Error that names the line that is none of this form. */
export function parseTranscript(text: string): Transcript {
  const [head = '', ...lines] = text.split('\n');
  const about = /^# (\S+): recorded from (.+)$/.exec(head);
  if (about === null) throw new Error(`expected "# FAMILY: recorded from AGENT", found "${head}"`);
  const exchanges: { name: string; sends: string[]; lines: string[]; isShape: boolean }[] = [];
  for (const line of lines) {
    const [, mark = '', rest = ''] = /^(==|>|<~|<|#|)(?: (.*))?$/.exec(line) ?? [];
    const last = exchanges.at(-1);
    if (mark === '==') exchanges.push({ name: unescapeText(rest), sends: [], lines: [], isShape: false });
    else if (mark === '>' && last !== undefined) last.sends.push(unescapeText(rest));
    else if (mark === '<' && last !== undefined) last.lines.push(rest);
    else if (mark === '<~' && last !== undefined) {
      last.isShape = true;
      last.lines.push(rest);
    } else if (line !== '' && mark !== '#') throw new Error(`expected a line of a transcript, found "${line}"`);
  }
  return {
    family: about[1] ?? '',
    agent: about[2] ?? '',
    exchanges: exchanges.map(({ name, sends, lines: answers, isShape }) => ({
      name,
      sends,
      isShape,
      answer: isShape ? answers.join('\n') : answers.map((line) => unescapeAnswer(line)).join(''),
    })),
  };
}

const NO_NEWLINE = '⟨no newline⟩';

function answerLines(answer: string): readonly string[] {
  if (answer === '') return [];
  const lines = answer.split('\n');
  const last = lines.pop() ?? '';
  const shown = collapse([...lines.map(escapeText), ...(last === '' ? [] : [`${escapeText(last)}${NO_NEWLINE}`])]);
  return shown;
}

/** Equal lines one after another, from the third on: one line and their number. */
function collapse(lines: readonly string[]): readonly string[] {
  const found: { line: string; times: number }[] = [];
  for (const line of lines) {
    const last = found.at(-1);
    if (last?.line === line) last.times++;
    else found.push({ line, times: 1 });
  }
  return found.flatMap(({ line, times }) =>
    times < 3 ? Array<string>(times).fill(line) : [`${line}⟨lines×${times}⟩`],
  );
}

function unescapeAnswer(line: string): string {
  if (line.endsWith(NO_NEWLINE)) return unescapeText(line.slice(0, -NO_NEWLINE.length));
  const times = /⟨lines×(\d+)⟩$/.exec(line);
  if (times === null) return `${unescapeText(line)}\n`;
  return `${unescapeText(line.slice(0, times.index))}\n`.repeat(Number(times[1]));
}

/** Longest piece that is looked for, fewest characters that are worth saying so. */
const unitLimit = 32;
const worthIt = 80;

/** Latin1 text to the form of a transcript. */
export function escapeText(text: string): string {
  let out = '';
  let plain = 0;
  const flush = (end: number): void => {
    out += escapeBytes(text.slice(plain, end));
  };
  for (let at = 0; at < text.length;) {
    const repeat = repetition(text, at);
    if (repeat === undefined) {
      at++;
      continue;
    }
    flush(at);
    out += `⟨${escapeBytes(text.slice(at, at + repeat.length))}×${repeat.times}⟩`;
    at += repeat.length * repeat.times;
    plain = at;
  }
  flush(text.length);
  return out;
}

function repetition(text: string, at: number): { readonly length: number; readonly times: number } | undefined {
  for (let length = 1; length <= unitLimit && at + length * 2 <= text.length; length++) {
    if (text.charCodeAt(at) !== text.charCodeAt(at + length)) continue;
    let end = at + length;
    while (end < text.length && text.charCodeAt(end) === text.charCodeAt(end - length)) end++;
    const times = Math.floor((end - at) / length);
    if (times > 2 && times * length >= worthIt) return { length, times };
  }
  return undefined;
}

function escapeBytes(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, (byte) => `⟨${byte.charCodeAt(0).toString(16).padStart(2, '0')}⟩`);
}

export function unescapeText(text: string): string {
  const bytes = (escaped: string): string =>
    escaped.replace(/⟨([0-9a-f]{2})⟩/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return text
    .split(/(⟨(?:[^⟨⟩]|⟨[0-9a-f]{2}⟩)*×\d+⟩)/)
    .map((piece) => {
      const repeated = /^⟨(.*)×(\d+)⟩$/s.exec(piece);
      return repeated === null ? bytes(piece) : bytes(repeated[1] ?? '').repeat(Number(repeated[2]));
    })
    .join('');
}
