// Records the corpus anew from the real programs: Debian's qemu-ga (harmless commands only, as in test/conformance), a
// QEMU without a guest, and the freezer in a private mount namespace (test/support/private-mounts.ts). Names of this
// machine are replaced.
import { mkdir, writeFile } from 'node:fs/promises';
import { hostname, release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { defined } from '../../src/defined.js';
import { commandNames } from '../../src/qga/commands.js';
import { memoryPair } from '../../src/transport/memory-pair.js';
import { encode } from '../../src/wire/encode.js';
import { converse } from '../conformance/conversation.js';
import { exchanges } from '../conformance/exchanges.js';
import { makeGuard } from '../conformance/harmless.js';
import { realAgent } from '../conformance/peers.js';
import { BareQemu } from '../support/bare-qemu.js';
import { connectLines, type LineClient } from '../support/line-client.js';
import { privateMounts } from '../support/private-mounts.js';
import { scratch } from '../support/scratch.js';
import { serveInMemory } from './agent-in-memory.js';
import { writeCorpus, type Recorded } from './corpus.js';

/** Characters. Longer exchanges are about limits, which have tests of their own. */
const EXCHANGE_LIMIT = 4096;
const LINE_LIMIT = 16 * 1024;

const anonymous = (text: string): string =>
  text
    .replaceAll(hostname(), 'guest')
    .replaceAll(release(), '6.1.0')
    .replace(/\/tmp\/fsb-\w+/g, '/run/vm');

async function recordQga(): Promise<void> {
  await using agent = await realAgent();
  const real = converse(agent.stream);
  const requests: Recorded[] = [];
  for (const exchange of exchanges) {
    const sent = exchange.sends.join('');
    if (sent.length > EXCHANGE_LIMIT) continue;
    const answered = anonymous(await real.exchange(exchange));
    if (answered.length > LINE_LIMIT) continue;
    requests.push(recorded(exchange.name, [sent], split(answered)));
  }
  writeCorpus('qga-requests', requests);

  // As our client asks: with an id, which the fuzzer makes that of the request under way.
  const replies: Recorded[] = [];
  for (const name of commandNames) {
    const sent = `{"execute": "${name}", "arguments": {${name.includes('sync') ? '"id": 1' : ''}}, "id": "@ID@"}`;
    try {
      makeGuard()(Buffer.from(sent));
    } catch {
      continue;
    }
    const answered = anonymous(await real.exchange({ name, sends: [sent] }));
    // The last line answers the 0xFF of the resync.
    replies.push(recorded(name, [sent], split(answered).slice(0, -1)));
  }
  writeCorpus('qga-replies', replies);
}

/** Our own commands, which no other agent has: the agent in memory. */
const bridgeRequests: readonly (readonly [name: string, args: object])[] = [
  ['guest-info', {}],
  ['bridge-status', {}],
  ['bridge-writers', {}],
  [
    'bridge-freeze',
    { session: 's-1', requester: 'host', 'lease-ms': 5000, require: 'auto', disks: [{ serial: 'SYS' }] },
  ],
  ['bridge-status', {}],
  ['guest-fsfreeze-status', {}],
  ['guest-get-osinfo', {}],
  ['bridge-freeze', {}],
  ['bridge-renew', { session: 's-1', 'lease-ms': 60_000 }],
  ['bridge-thaw', { session: 's-1' }],
  ['bridge-thaw', { session: 'another' }],
  ['bridge-freeze', { require: 'best', disks: [] }],
  ['bridge-freeze', { session: 's-2', mountpoints: ['/', '/srv/\u00e9'], disks: [{ 'pci-address': '0000:00:02.0' }] }],
  ['guest-fsfreeze-thaw', {}],
  ['guest-fsfreeze-freeze', {}],
  ['guest-fsfreeze-freeze-list', { mountpoints: ['/'] }],
  ['guest-fsfreeze-thaw', {}],
  ['guest-fsfreeze-thaw', {}],
  ['guest-get-time', {}],
  ['bridge-renew', { session: 's-2', 'lease-ms': 0 }],
];

async function recordBridge(): Promise<void> {
  const [near, far] = memoryPair();
  const served = serveInMemory(far);
  const incoming = near.read()[Symbol.asyncIterator]();
  const found: Recorded[] = [];
  for (const [execute, args] of bridgeRequests) {
    const sent = encode({ execute, arguments: args, id: '@ID@' });
    await near.write(Buffer.from(sent));
    const { value } = (await incoming.next()) as { value: Uint8Array };
    found.push(recorded(execute, [sent], [Buffer.from(value).toString('latin1')]));
  }
  await near.close();
  await served;
  writeCorpus('bridge', found);
}

async function recordQmp(): Promise<void> {
  using folder = scratch();
  await using qemu = await BareQemu.start(folder, [
    { name: 'system', format: 'qcow2', megabytes: 4, serial: 'SYS-1' },
    { name: 'data', format: 'raw', megabytes: 4, behindPort: true, throttled: true },
  ]);
  using monitor = await connectLines(qemu.qmp);
  const found: Recorded[] = [
    { name: 'greeting', lines: [{ sent: false, text: `${anonymous(await monitor.line())}\n` }] },
  ];
  const ask = async (execute: string, args?: object, events = 0): Promise<unknown> => {
    const sent = JSON.stringify({ execute, ...defined({ arguments: args }), id: '@ID@' });
    monitor.send(sent);
    const lines: string[] = [];
    let missing = events + 1;
    while (missing > 0) {
      lines.push(await monitor.line());
      missing--;
    }
    const texts = lines.map((line) => `${anonymous(line)}\n`).filter(({ length }) => length < LINE_LIMIT);
    found.push(recorded(execute, [anonymous(sent)], texts));
    const reply = lines
      .map((line) => JSON.parse(line) as { return?: unknown; id?: unknown })
      .find(({ id }) => id === '@ID@');
    return reply?.return;
  };
  await ask('qmp_capabilities');
  for (const query of ['status', 'name', 'uuid', 'block', 'blockstats', 'block-jobs', 'chardev', 'jobs', 'pci']) {
    await ask(`query-${query}`);
  }
  const nodes = (await ask('query-named-block-nodes', { flat: true })) as { 'node-name': string; drv: string }[];
  await ask('x-debug-query-block-graph');
  await ask('qom-get', { path: '/machine', property: 'type' });
  await ask('qom-get', { path: '/machine', property: 'nothing' });
  await ask('stop', undefined, 1);
  await ask('cont', undefined, 1);
  await ask('nothing');
  await ask('blockdev-add', { driver: 'qcow2' });
  const base = nodes.find(({ drv }) => drv === 'qcow2')?.['node-name'];
  const overlay = folder.path('overlay.qcow2');
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', overlay, '4M']);
  await ask('blockdev-add', {
    driver: 'qcow2',
    'node-name': 'top',
    file: { driver: 'file', 'node-name': 'top-file', filename: overlay },
    backing: null,
  });
  await ask('transaction', { actions: [{ type: 'blockdev-snapshot', data: { node: base, overlay: 'top' } }] });
  await ask('transaction', { actions: [{ type: 'blockdev-snapshot', data: { node: 'none', overlay: 'top' } }] });
  const commit = { 'job-id': 'job', device: 'top', 'top-node': 'top', 'base-node': base, 'auto-dismiss': false };
  monitor.send(JSON.stringify({ execute: 'block-commit', arguments: commit, id: '@ID@' }));
  await sleep(300);
  const running = await rest(monitor);
  monitor.send(JSON.stringify({ execute: 'job-complete', arguments: { id: 'job' }, id: '@ID@' }));
  await sleep(300);
  found.push(
    recorded(
      'block-commit',
      [JSON.stringify(commit)],
      [...running, ...(await rest(monitor))].map((line) => `${anonymous(line)}\n`),
    ),
  );
  await ask('query-jobs');
  writeCorpus('qmp', found);
}

/** Lines that are here already. */
async function rest(client: LineClient): Promise<string[]> {
  const lines: string[] = [];
  for (;;) {
    const line = await client.line(100).catch(() => undefined);
    if (line === undefined) return lines;
    lines.push(line);
  }
}

async function recordFreezer(): Promise<void> {
  await using mounts = await privateMounts({ filesystems: { a: 'ext4', b: 'ext4' }, boundMs: 60_000 });
  await mkdir(`${mounts.shared}/run`);
  await writeFile(`${mounts.shared}/run/rcu`, '0\n');
  const words = [
    '--socket',
    '/shared/run/freezer.sock',
    '--marker',
    '/shared/run/frozen',
    '--rcu-knob',
    '/shared/run/rcu',
  ];
  const [file, args] = mounts.inside('/bin/freezer', '--foreground', '--no-kill', ...words);
  const freezer = execa(file, args, { reject: false });
  try {
    let client: LineClient | undefined;
    for (let tries = 0; client === undefined; tries++) {
      if (tries === 100) throw new Error('expected the freezer to answer within 5 s');
      await sleep(50);
      client = await connectLines(`${mounts.shared}/run/freezer.sock`).catch(() => undefined);
    }
    using connection = client;
    const found: Recorded[] = [];
    const ask = async (line: string): Promise<void> => {
      const answered = await connection.ask(line);
      found.push(
        recorded(
          line.split(' ')[0] ?? '',
          [`${line}\n`],
          answered.map((text) => `${text}\n`),
        ),
      );
    };
    const plan = 'plan session-1 the\\040test 60000 30000 1';
    const filesystems = mounts.mounts.map(
      ({ mountId, device, path }, index) => `fs ${index} ${mountId} ${device} ${path}`,
    );
    for (const line of ['hello', 'status', plan, 'status', ...filesystems, filesystems[0] ?? '']) await ask(line);
    for (const line of ['fs 0 1 0:0 /nothing\\040here', 'sync 5000', 'freeze 10000', 'status', 'renew 5000'])
      await ask(line);
    for (const line of ['critical on 100', 'critical off', 'thaw', 'thaw', 'status', 'freeze 1000', 'nonsense'])
      await ask(line);
    for (const line of ['plan s \\ 1000 1000 0', ...filesystems, 'freeze 300']) await ask(line);
    await sleep(400);
    const expired = await rest(connection);
    found.push(
      recorded(
        'expiry',
        [],
        expired.map((text) => `${text}\n`),
      ),
    );
    await ask('thaw');
    await ask('hello');
    writeCorpus('freezer', found);
  } finally {
    freezer.kill('SIGTERM');
    await freezer;
  }
}

function recorded(name: string, sent: readonly string[], answered: readonly string[]): Recorded {
  const lines = [...sent.map((text) => ({ sent: true, text })), ...answered.map((text) => ({ sent: false, text }))];
  return { name: name.replace(/[^ -~]/g, '?'), lines };
}

/** After each newline. */
const split = (text: string): string[] => text.split(/(?<=\n)/).filter((line) => line !== '');

export async function recordCorpus(): Promise<void> {
  await recordBridge();
  await recordQga();
  await recordQmp();
  await recordFreezer();
}
