// The guard of this suite: nothing but these commands may reach a qemu-ga on this machine (a freeze would hold every
// filesystem of it). Blocked at qemu-ga's own command line, and checked again in every byte that goes out.
import { execFileSync } from 'node:child_process';
import { MessageParser } from '../../src/wire/message-parser.js';
import { isJsonObject } from '../../src/wire/value.js';

/** Read-only, and in the exchanges. */
const harmless: ReadonlySet<string> = new Set([
  'guest-sync',
  'guest-sync-delimited',
  'guest-ping',
  'guest-info',
  'guest-fsfreeze-status',
  'guest-get-fsinfo',
  'guest-get-osinfo',
  'guest-get-host-name',
  'guest-get-time',
]);

/** Harmless, and blocked on both sides all the same: for the wording. */
export const blockedSample = 'guest-get-time';

const mustBeBlocked = ['guest-fsfreeze-freeze', 'guest-fsfreeze-freeze-list', 'guest-fsfreeze-thaw'];

/** Every command this qemu-ga knows that is not on the list. Throws if the answer does not look like a list. */
export function commandsToBlock(program: string, options: readonly string[] = []): readonly string[] {
  const all = execFileSync(program, [...options, '-b', 'help'], { encoding: 'utf8' })
    .split('\n')
    .filter(Boolean);
  return blockAllBut(all, program);
}

/** As commandsToBlock, of the commands that `program` names. */
export function blockAllBut(all: readonly string[], program: string): readonly string[] {
  const blocked = all.filter((name) => !harmless.has(name) || name === blockedSample);
  for (const name of mustBeBlocked) {
    if (!blocked.includes(name)) throw new Error(`${program} -b help does not name ${name}: not started`);
  }
  return blocked;
}

/** Throws before anything else than a harmless command goes out. One per connection: it follows the stream. */
export function makeGuard(): (bytes: Uint8Array) => void {
  const parser = new MessageParser();
  let tail = '';
  return (bytes) => {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
    // As raw text, whatever a parser makes of it; escapes in names are spelled out first.
    const near = tail + text;
    const spelled = near.replace(/\\u00([0-9a-f]{2})/gi, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
    const found = /guest-(fsfreeze-[frt]|shutdown|suspend|set-|exec|file|fstrim|ssh)|-freeze|-thaw/i.exec(spelled);
    if (found !== null) throw new Error(`refused to send ${found[0]}...`);
    tail = near.slice(-64);
    for (const message of parser.feed(bytes)) {
      if (message.kind !== 'value' || !isJsonObject(message.value)) continue;
      const name = message.value['execute'];
      if (typeof name !== 'string' || !name.startsWith('guest-')) continue;
      if (!harmless.has(name.trimEnd())) throw new Error(`refused to send ${name}`);
    }
  };
}
