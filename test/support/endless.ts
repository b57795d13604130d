// Bytes without end, for hostile peers: made as they are read.

const PIECE = 64 * 1024;

/** `head`, then `unit` again and again until `totalBytes`. `look` is called every 2 MiB. */
export function* endless(head: string, unit: string, totalBytes: number, look?: () => void): Generator<Buffer> {
  yield Buffer.from(head, 'latin1');
  const piece = Buffer.from(unit.repeat(Math.ceil(PIECE / unit.length)), 'latin1');
  let sent = 0;
  for (let looked = 0; sent < totalBytes; sent += piece.length) {
    yield piece;
    if (sent - looked < 2 * 1024 * 1024) continue;
    looked = sent;
    look?.();
  }
}

/** One byte at a time, `everyMs` apart. */
export async function* drip(text: string, everyMs: number): AsyncGenerator<Buffer> {
  for (const character of text) {
    yield Buffer.from(character, 'latin1');
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
