// Takes the terminal escapes out of texts that a guest or a file name brings along: a hook's first line of stderr must not
// be able to clear the screen, set the title or turn the text around.

/** Control characters but newline and tab; separators and marks that reorder text. */
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** The text with every character that a terminal acts on written as `\u{..}`. */
export function printable(text: string): string {
  return text.replace(unsafe, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** The same, trimmed and on one line. */
export function printableLine(text: string): string {
  return printable(text.trim().replace(/\s*[\r\n\t]+\s*/g, ' '));
}

/** The same for one row of a text, which keeps its indent, and stays one row whatever was put into it. */
export function printableRow(text: string): string {
  return printable(text.replace(/[\r\n\t]+/g, ' '));
}

/** JSON on one line. Characters that JSON leaves alone and a terminal acts on are escaped, too. */
export function printableJson(value: unknown): string {
  return JSON.stringify(value).replace(
    unsafe,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  );
}
