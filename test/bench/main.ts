// npm run bench -- NAME [--json]: ratios against the real qemu-ga on the same guest, in one run. Exit 1 if a limit is
// not kept, 2 on usage.
import { parseArgs } from 'node:util';
import { guestKinds } from './guest-kinds.js';
import { idle } from './idle.js';
import { mounts } from './mounts.js';
import { pause } from './pause.js';
import { recovery } from './recovery.js';
import { start } from './start.js';
import { report, type Row } from './table.js';
import { virsh } from './virsh.js';
import { windows } from './windows.js';

const benches: Readonly<Record<string, () => Promise<readonly Row[]>>> = {
  windows,
  pause,
  idle,
  start,
  recovery,
  virsh,
  mounts,
  guests: guestKinds,
};

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const [name = ''] = positionals;
const bench = benches[name];
if (bench === undefined || positionals.length !== 1) {
  console.error(
    `usage: npm run bench -- ${Object.keys(benches).join('|')} [--json]; found: ${positionals.join(' ') || 'nothing'}`,
  );
  process.exitCode = 2;
} else if (!report(name, await bench(), values.json)) {
  process.exitCode = 1;
}
