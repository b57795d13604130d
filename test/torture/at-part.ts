// Chooses among things of which a draw does not know how many there will be.

/** `part`: from 0 to 1, how far along. Undefined if there is none. */
export function atPart<Thing>(all: readonly Thing[], part: number): Thing | undefined {
  return all[Math.min(all.length - 1, Math.floor(part * all.length))];
}
