// What a cell may leave: nothing. In the guest no process but agent and freezer, no file but their sockets, no lock, the
// RCU knob as it was; on the host nothing that `fsfreeze-bridge recover` does not clear.
import { readdir } from 'node:fs/promises';
import * as v from 'valibot';
import { bridge } from '../../support/agent-guest.js';
import type { Lab } from './lab.js';
import type { ToolParts } from './requesters.js';

const LOOK = `
for unit in fsfreeze-agent fsfreeze-freezer; do
  count=0
  while read -r pid; do
    # The agent's own child, which speaks to the watchdog; without its agent it is left behind.
    if read -r name </proc/$pid/comm && [ "$name" = agent-heartbeat ]; then
      while read -r key value; do [ "$key" = PPid: ] && break; done </proc/$pid/status
      [ "$value" = 1 ] || continue
    fi
    count=$((count+1))
    [ $count = 1 ] || echo "process $pid of $unit.service: $(tr '\\0' ' ' </proc/$pid/cmdline)"
  done </sys/fs/cgroup/system.slice/$unit.service/cgroup.procs
  [ $count -gt 0 ] || echo "$unit.service does not run"
done
find /run/fsfreeze-bridge -mindepth 1 -path /run/fsfreeze-bridge/kept -prune -o ! -type s ! -path /run/fsfreeze-bridge/sessions ! -path /run/fsfreeze-bridge/file-handles -printf 'file %p\\n'
find /run/fsfreeze-bridge/kept -mindepth 1 -regextype posix-extended ! -regex '.*/kept/[-0-9a-f]{36}(/((kept|completion)\\.json|output|scratch))?' -printf 'file %p\\n' 2>/dev/null
[ "$(find /run/fsfreeze-bridge/kept -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -le 16 ] || echo 'more than 16 sessions in kept'
rcu=$(cat /sys/kernel/rcu_expedited 2>/dev/null) # single-processor kernels have none
[ "$rcu" = "$(cat /run/fsb-lab/rcu)" ] || echo "rcu_expedited $rcu"
for dir in /var/tmp /srv/data /srv/more; do
  timeout 5 dd if=/dev/zero of=$dir/proof bs=4k count=1 conv=fsync 2>/dev/null || echo "no write to $dir"
done
:`;

// Next to the sockets: the number of the next file handle, which is not given twice, also by an agent started anew (the host
// tool reads the machine's UUID where the agent's socket is a relay's); and the last sessions, which bridge-complete may
// name, without anything of their writers: none of the cell's has the phase complete.

/** Complaints about the guest. What ends on its own within a moment (a process that was killed) may do so. */
export async function leftInGuest(lab: Lab): Promise<string[]> {
  let found: string[] = [];
  for (let tries = 0; tries < 10; tries++) {
    const { stdout } = await lab.guest.exec(LOOK, { timeoutMs: 60_000 });
    found = stdout.split('\n').filter((line) => line !== '');
    if (found.length === 0) return [];
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return found.map((line) => `left in the guest: ${line}`);
}

/** Of a set that `Lab.nextSet` names. */
const SET_FILE = /\.cell-\d+-[0-9a-f]{8}\.qcow2$/;

const Recovered = v.looseObject({
  findings: v.array(v.looseObject({ kind: v.string(), status: v.string(), found: v.string(), did: v.string() })),
});
const Sets = v.looseObject({ sets: v.array(v.looseObject({ state: v.string() })) });
const Node = v.looseObject({ 'node-name': v.optional(v.string()), file: v.string() });
interface Image {
  readonly filename: string;
  readonly 'backing-image'?: Image | undefined;
}
const Image: v.GenericSchema<Image> = v.looseObject({
  filename: v.string(),
  'backing-image': v.optional(v.lazy(() => Image)),
});
const Blocks = v.array(v.looseObject({ inserted: v.optional(v.looseObject({ image: Image })) }));

/** Complaints about the host: `recover` clears all, finds nothing the second time, and leaves no node and no file unused. */
export async function leftOnHost(lab: Lab, { monitor, channel }: ToolParts): Promise<string[]> {
  const { machine: guest } = lab;
  const sockets = { qmp: monitor.path, qga: channel.path };
  const complaints: string[] = [];
  const recover = async () => {
    const { exitCode, json, stderr } = await bridge(guest, ['recover'], sockets);
    if (exitCode !== 0) complaints.push(`recover: exit ${exitCode ?? 'none'}: ${JSON.stringify(json)} ${stderr}`);
    return exitCode === 0 ? v.parse(Recovered, json).findings : [];
  };
  for (const { status, found, did } of await recover())
    if (status !== 'done') complaints.push(`recover: ${status}: ${found}: ${did}`);
  for (const { found } of await recover()) complaints.push(`recover found again: ${found}`);

  const { json } = await bridge(guest, ['snapshot', 'list']);
  const { sets } = v.parse(Sets, json);
  for (const { state } of sets) if (state !== 'cut') complaints.push(`a set in state ${state} after recover`);
  // Every overlay there is belongs to a set that is cut: it is one of those under what the VM writes to.
  const blocks = v.parse(Blocks, await guest.monitor.execute('query-block'));
  const used = blocks.flatMap(({ inserted }) => (inserted === undefined ? [] : chain(inserted.image)));
  const nodes = v.parse(v.array(Node), await guest.monitor.execute('query-named-block-nodes', { flat: true }));
  for (const { 'node-name': name = '', file } of nodes)
    if (name.startsWith('fsb-') && !used.includes(file)) complaints.push(`node ${name} of ${file} is used by nobody`);
  for (const file of await readdir(guest.dir))
    if (SET_FILE.test(file) && !used.some((each) => each.endsWith(`/${file}`)))
      complaints.push(`${file} is used by nobody`);
  const isCut = used.some((file) =>
    nodes.some((node) => node.file === file && node['node-name']?.startsWith('fsb-') === true),
  );
  if (isCut !== sets.length > 0) complaints.push(`the VM writes to overlays: ${String(isCut)}; sets: ${sets.length}`);
  return complaints;
}

function chain({ filename, 'backing-image': under }: Image): string[] {
  return under === undefined ? [filename] : [filename, ...chain(under)];
}
