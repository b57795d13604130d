// Shortens what is recorded of other people's words: a guest may be hostile, and what is kept lies on the host's disk
// for as long as the set. A guest's whole report is bounded by report-size.ts.

const MAX_CHARACTERS = 4096;

/** The text, or the beginning of a long one and how long it was. */
export function clip(text: string): string {
  return text.length <= MAX_CHARACTERS ? text : `${text.slice(0, MAX_CHARACTERS)}... (${text.length} characters)`;
}
