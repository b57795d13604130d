// npm run bench -- NAME [--guest KIND] [--json]: ratios against the real qemu-ga on the same guest, in one run. Exit 1 if
// a limit is not kept, 2 on usage.
import { parseArgs } from 'node:util';
import { backup, backupBenches } from './backup.js';
import { guestKinds } from './guest-kinds.js';
import { idle } from './idle.js';
import { inGuest } from './in-guest.js';
import { mounts } from './mounts.js';
import { pause } from './pause.js';
import { recovery } from './recovery.js';
import { start } from './start.js';
import { report, type Row } from './table.js';
import { virsh } from './virsh.js';
import type { GuestKind } from '../../src/testing/index.js';
import { windows } from './windows.js';
import { writers } from './writers.js';

const benches: Readonly<Record<string, (kind: GuestKind) => Promise<readonly Row[]>>> = {
  windows,
  pause,
  idle,
  start,
  recovery,
  virsh,
  mounts,
  writers,
  'in-guest': inGuest,
  guests: guestKinds,
  backup,
  ...backupBenches,
};

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean', default: false }, guest: { type: 'string', default: 'qemu' } },
  allowPositionals: true,
});
const [name = ''] = positionals;
const bench = benches[name];
const kinds: readonly GuestKind[] = name === 'windows' ? ['qemu', 'user-mode'] : ['qemu'];
const kind = kinds.find((known) => known === values.guest);
if (bench === undefined || kind === undefined || positionals.length !== 1) {
  const found = process.argv.slice(2).join(' ') || 'nothing';
  console.error(
    `usage: npm run bench -- ${Object.keys(benches).join('|')} [--guest qemu|user-mode (windows)] [--json]; found: ${found}`,
  );
  process.exitCode = 2;
} else if (!report(name, await bench(kind), values.json)) {
  process.exitCode = 1;
}
