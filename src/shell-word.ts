// Quotes words for a command that a person is told to type. Nothing here is run by us.

/** The word as a shell takes it: in quotes if it must be. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
