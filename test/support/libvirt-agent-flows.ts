// Flows through virsh in which the agent alone acts. They are run in this order, in one domain.
import { setTimeout as sleep } from 'node:timers/promises';
import { beginWrites, lastWrite, writesDone } from './first-write.js';
import { MOUNTPOINTS } from './libvirt-filesystems.js';
import { agentReturns, rowsOf, said, type Flow } from './libvirt-flow.js';

const GROUPS = {
  'user.': 'users',
  'os.': 'os',
  timezone: 'timezone',
  hostname: 'hostname',
  'fs.': 'filesystems',
  'disk.': 'disks',
  'if.': 'interfaces',
};
const WRITABLE = ['/var/tmp', ...MOUNTPOINTS.slice(1)];

export const agentFlows: readonly Flow[] = [
  {
    name: '`domfsinfo`',
    seen: '0, 6 filesystems',
    async run(domain) {
      const info = await domain.virsh('domfsinfo');
      const fields = rowsOf(info.stdout);
      return { text: `${String(info.exitCode)}, ${fields.length} filesystems`, fields };
    },
  },
  {
    name: '`guestinfo`',
    seen: '0; users, os, timezone, hostname, filesystems, disks, interfaces',
    async run(domain) {
      const info = await domain.virsh('guestinfo');
      const fields = guestInfo(info.stdout);
      const told = Object.entries(GROUPS).filter(([prefix]) => fields.some((field) => field.startsWith(prefix)));
      return { text: `${String(info.exitCode)}; ${told.map(([, group]) => group).join(', ')}`, fields };
    },
  },
  {
    name: '`qemu-agent-command`',
    seen: '0: {"return":{}}; 1: The command guest-nope has not been found',
    async run(domain) {
      const ping = await domain.virsh('qemu-agent-command', ['{"execute":"guest-ping"}']);
      const nope = await domain.virsh('qemu-agent-command', ['{"execute":"guest-nope"}']);
      return { text: `${said(ping)}; ${said(nope)}`, fields: await agentReturns(domain, 'guest-get-osinfo') };
    },
  },
  {
    name: '`domtime`, `--time`, `--sync`, `--now`',
    seen: '0, 0, 0, 0; the guest has the time',
    async run(domain) {
      const then = 1_700_000_000;
      const codes = [(await domain.virsh('domtime')).exitCode];
      const off: number[] = [];
      const set = async (words: readonly string[], expected: () => number) => {
        codes.push((await domain.virsh('domtime', words)).exitCode);
        off.push(Math.abs(Number((await domain.exec(['/bin/date', '+%s'])).stdout) - expected()));
      };
      await set(['--time', String(then)], () => then);
      // From the RTC, which the command before has set: it is not the host's clock that is taken.
      await set(['--sync'], () => then);
      await set(['--now'], () => Date.now() / 1000);
      const right = off.every((seconds) => seconds < 30) ? 'the guest has the time' : `off by ${off.join(', ')} s`;
      return { text: `${codes.join(', ')}; ${right}` };
    },
  },
  {
    name: '`domfstrim`',
    seen: '0',
    run: async (domain) => ({ text: said(await domain.virsh('domfstrim')) }),
  },
  {
    name: '`set-user-password`, as shipped',
    seen: {
      stock: '0: Password set successfully for root in fsb',
      ours: '1: Command guest-set-user-password has been disabled: the command is not allowed',
      why: 'not in the `default` policy: the administrator turns it on',
    },
    run: async (domain) => ({ text: said(await domain.virsh('set-user-password', ['root', 'secret'])) }),
  },
  {
    name: '`set-user-password`, `--encrypted`, `also-allow=guest-set-user-password`',
    seen: '0: Password set successfully for root in fsb, twice; they are set',
    async run(domain, agent) {
      if (agent === 'ours') await domain.configureAgent('[bridge]\nalso-allow=guest-set-user-password\n');
      const shadow = async () => (await domain.exec('getent shadow root | cut -d: -f2')).stdout.trim();
      const before = await shadow();
      const plain = await domain.virsh('set-user-password', ['root', 'other']);
      const after = await shadow();
      const encrypted = await domain.virsh('set-user-password', ['root', '$6$a$b', '--encrypted']);
      const set = after !== before && after.startsWith('$') && (await shadow()) === '$6$a$b';
      const text = said(plain) === said(encrypted) ? `${said(plain)}, twice` : `${said(plain)}; ${said(encrypted)}`;
      return { text: `${text}; they are ${set ? 'set' : 'not set'}` };
    },
  },
  {
    name: '`domfsfreeze`, `domfsthaw`',
    seen: '0: Froze 6 filesystem(s); frozen, 0 of 6 writes go through; 0: Thawed 6 filesystem(s)',
    async run(domain) {
      const freeze = await domain.virsh('domfsfreeze');
      const writes = await beginWrites(domain, WRITABLE);
      await sleep(500);
      const status = await agentReturns(domain, 'guest-fsfreeze-status');
      const done = (await writesDone(domain, writes)).length;
      const thaw = await domain.virsh('domfsthaw');
      await lastWrite(domain, writes, 10_000);
      const meanwhile = `${String(status)}, ${done} of ${WRITABLE.length} writes go through`;
      return { text: `${said(freeze)}; ${meanwhile}; ${said(thaw)}` };
    },
  },
  {
    name: 'while frozen: `domfsfreeze`, `domfsinfo`, `domfstrim`, `domtime`, `guestinfo`',
    seen: {
      stock: '1, 1, 1, 1, 0; disabled: the agent is in frozen state',
      ours: '1, 1, 1, 1, 0; disabled: the command is not allowed',
      why: 'words of qemu-ga 10; `--compat=7.2` gives those of 7.2',
    },
    async run(domain) {
      await domain.run('domfsfreeze');
      const answers = [];
      for (const command of ['domfsfreeze', 'domfsinfo', 'domfstrim', 'domtime', 'guestinfo']) {
        answers.push(await domain.virsh(command));
      }
      const thaw = await domain.run('domfsthaw');
      const reasons = answers.flatMap(({ stderr }) => /has been (disabled: .*)/.exec(stderr)?.[1] ?? []);
      const codes = answers.map(({ exitCode }) => String(exitCode));
      return { text: `${codes.join(', ')}; ${[...new Set(reasons)].join(', ')}`, fields: thaw };
    },
  },
  {
    name: '`domfsthaw`, nothing frozen',
    seen: '0: Thawed 0 filesystem(s)',
    run: async (domain) => ({ text: said(await domain.virsh('domfsthaw')) }),
  },
  {
    name: '`domfsfreeze --mountpoint`, `domfsthaw`',
    seen: '0: Froze 2 filesystem(s); 0: Thawed 2 filesystem(s)',
    async run(domain) {
      const words = ['--mountpoint', '/srv/ext', '--mountpoint', '/srv/lv-xfs'];
      const freeze = await domain.virsh('domfsfreeze', words);
      const thaw = await domain.virsh('domfsthaw');
      return { text: `${said(freeze)}; ${said(thaw)}` };
    },
  },
  {
    name: '`domfsfreeze --mountpoint` with one of the two filesystems of a running PostgreSQL',
    // Half of a database is not a snapshot of it: the level says so, and refuses where one is asked for.
    seen: '0: Froze 1 filesystem(s); 0: Thawed 1 filesystem(s)',
    async run(domain) {
      const freeze = await domain.virsh('domfsfreeze', ['--mountpoint', '/srv/data']);
      const thaw = await domain.virsh('domfsthaw');
      return { text: `${said(freeze)}; ${said(thaw)}` };
    },
  },
  {
    name: '`guest-agent-timeout --timeout 30`, `domfsfreeze`, `domfsthaw`',
    seen: '0; 0: Froze 6 filesystem(s); 0: Thawed 6 filesystem(s)',
    async run(domain) {
      const limit = await domain.virsh('guest-agent-timeout', ['--timeout', '30']);
      const freeze = await domain.virsh('domfsfreeze');
      const thaw = await domain.virsh('domfsthaw');
      await domain.run('guest-agent-timeout', '--timeout', '-2');
      return { text: [limit, freeze, thaw].map(said).join('; ') };
    },
  },
  {
    name: '`domfsfreeze`, `save`, `restore`, `domfsthaw`',
    seen: '0: Froze 6 filesystem(s); 0; 0; frozen; 0: Thawed 6 filesystem(s)',
    async run(domain) {
      const file = `${domain.dir}/saved`;
      const freeze = await domain.virsh('domfsfreeze');
      const save = await domain.virsh('save', [file]);
      const restore = await domain.host.virsh(['restore', file]);
      const status = await agentReturns(domain, 'guest-fsfreeze-status');
      const thaw = await domain.virsh('domfsthaw');
      await lastWrite(domain, await beginWrites(domain, WRITABLE), 10_000);
      // What save and restore print is empty but for a line that names the file.
      const codes = [save, restore].map(({ exitCode }) => String(exitCode)).join('; ');
      return { text: `${said(freeze)}; ${codes}; ${String(status)}; ${said(thaw)}` };
    },
  },
];

/** Name and value of every field; the disks by name, as their order is that of a folder in sysfs. */
function guestInfo(stdout: string): readonly string[] {
  const lines = stdout.split('\n').map((line) => line.trim().replace(/\s*:\s+/, ': '));
  const names = new Map<string, string>();
  for (const line of lines) {
    const [, number, name] = /^disk\.(\d+)\.name: (.*)$/.exec(line) ?? [];
    if (number !== undefined && name !== undefined) names.set(number, name);
  }
  const known = lines.map((line) =>
    line.replace(/^disk\.(\d+)\./, (_all, number: string) => `disk.${names.get(number) ?? number}.`),
  );
  return known.map((line) => line.replace(/(used-bytes): .*/, '$1')).sort();
}
