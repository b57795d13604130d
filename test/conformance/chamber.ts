// The place in which agents, the real ones and ours, are run for transcripts: user, mount, process, network, name and
// IPC namespaces of their own, begun by a user without rights. Root there is nobody here: it can freeze nothing, set no
// clock, end no process and reach no service of this machine, whatever it is asked. Its files are copies on a tmpfs.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
} from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const nobody = '65534';
const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

/** What an agent needs inside, and how it is called there. */
export interface ChamberAgent extends AsyncDisposable {
  /** A folder that becomes the chamber's root. */
  readonly rootfs: string;
  readonly command: readonly string[];
}

/** An installed qemu-ga: the program and the libraries it is linked with. */
export async function installedAgent(program: string): Promise<ChamberAgent> {
  const rootfs = await emptyRoot();
  copyProgram(program, join(rootfs, 'usr/sbin/qemu-ga'), rootfs);
  return agent(rootfs, ['/usr/sbin/qemu-ga']);
}

/** The qemu-ga of a Debian suite, fetched with this machine's apt into a folder of its own; nothing is installed. */
export async function agentOfSuite(suite: string): Promise<ChamberAgent> {
  const rootfs = await emptyRoot();
  const script = fileURLToPath(new URL('../../vm-images/fetch-packages.sh', import.meta.url));
  execFileSync('sh', [script, suite, rootfs], { stdio: ['ignore', 'inherit', 'inherit'] });
  return agent(rootfs, ['/usr/sbin/qemu-ga']);
}

/** Our agent as it is built (`npm run build`), in one file, with the Node that runs this. */
export async function builtAgent(): Promise<ChamberAgent> {
  const rootfs = await emptyRoot();
  copyProgram(process.execPath, join(rootfs, 'usr/bin/node'), rootfs);
  // What it asks where qemu-ga asks a library.
  for (const name of ['getent', 'ip']) copyProgram(programPath(name), join(rootfs, 'usr/bin', name), rootfs);
  await build({
    entryPoints: [join(repository, 'dist/cli/agent/main.js')],
    outfile: join(rootfs, 'usr/lib/agent.cjs'),
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'error',
  });
  await writeFile(
    join(rootfs, 'etc/fsb.conf'),
    '[bridge]\nruntime-dir=/run/fsb\nfreezer=/bin/false\nlocal-socket=none\nwriter-folders=/nonexistent\npolicy=full\n',
  );
  return agent(rootfs, ['/usr/bin/node', '/usr/lib/agent.cjs']);
}

async function emptyRoot(): Promise<string> {
  const rootfs = await mkdtemp(join(tmpdir(), 'fsb-chamber-'));
  chmodSync(rootfs, 0o755);
  for (const folder of ['usr/lib', 'usr/lib64', 'usr/bin', 'usr/sbin', 'etc', 'root']) {
    mkdirSync(join(rootfs, folder), { recursive: true });
  }
  for (const name of ['lib', 'lib64', 'bin', 'sbin']) symlinkSync(`usr/${name}`, join(rootfs, name));
  const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
  if (busybox === undefined) throw new Error('expected busybox (package busybox-static), found none');
  copyFileSync(busybox, join(rootfs, 'usr/bin/busybox'));
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean);
  for (const name of applets)
    if (!['busybox', 'ip'].includes(name)) symlinkSync('busybox', join(rootfs, 'usr/bin', name));
  for (const program of ['socat', 'flock'])
    copyProgram(`/usr/bin/${program}`, join(rootfs, 'usr/bin', program), rootfs);
  await writeFile(join(rootfs, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\n');
  await writeFile(join(rootfs, 'etc/group'), 'root:x:0:\n');
  await writeFile(join(rootfs, 'etc/os-release'), 'ID=chamber\nNAME="Chamber"\nVERSION_ID="1"\n');
  return rootfs;
}

function programPath(name: string): string {
  return execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8', env }).trim();
}

function copyProgram(program: string, target: string, rootfs: string): void {
  copyFileSync(program, target);
  chmodSync(target, 0o755);
  const listing = execFileSync('ldd', [program], { encoding: 'utf8' });
  for (const [, library = ''] of listing.matchAll(/(?:^|\s)(\/\S+) \(0x/g)) {
    const inside = join(rootfs, library);
    mkdirSync(dirname(inside), { recursive: true });
    cpSync(realpathSync(library), inside);
  }
}

function agent(rootfs: string, command: readonly string[]): ChamberAgent {
  return { rootfs, command, [Symbol.asyncDispose]: () => rm(rootfs, { recursive: true, force: true }) };
}

export interface Chamber extends AsyncDisposable {
  /** The chamber's root as seen from here: for sockets and files that come into being inside. */
  readonly root: string;
  /** What process 1 has printed so far, both streams. */
  readonly output: () => string;
  /** Runs a command inside, beside process 1, and waits for it. */
  readonly run: (command: readonly string[], options?: RunOptions) => Promise<RunResult>;
}

interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** After this it is ended, and `timedOut` is true. */
  readonly limitMs?: number;
}

interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Of a shell: 128 and the signal's number if a signal ended it. */
  readonly exitCode: number | null;
  readonly timedOut: boolean;
}

/** Opens a chamber whose process 1 is `command`; by default one that waits. */
export async function openChamber(
  rootfs: string,
  command: readonly string[] = ['/bin/busybox', 'sleep', '100000'],
): Promise<Chamber> {
  const script = fileURLToPath(new URL('chamber.sh', import.meta.url));
  const spaces = ['--user', '--map-root-user', '--mount', '--pid', '--net', '--uts', '--ipc', '--fork', '--kill-child'];
  const words = ['unshare', ...spaces, 'sh', script, rootfs, ...command];
  const asNobody = ['setpriv', '--reuid', nobody, '--regid', nobody, '--clear-groups', '--inh-caps=-all'];
  const [program = '', ...args] = process.geteuid?.() === 0 ? [...asNobody, ...words] : words;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  const exited = once(child, 'exit');
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('latin1').on('data', (text: string) => (output += text));
  }
  const close = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
  };
  try {
    const first = await processOne(child, command, () => output);
    const root = `/proc/${first}/root`;
    return { root, output: () => output, run: runIn(first), [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The chamber's process 1, once it runs `command` in its own root. */
async function processOne(child: ChildProcess, command: readonly string[], output: () => string): Promise<number> {
  const pid = child.pid ?? 0;
  for (let tries = 0; tries < 500 && child.exitCode === null; tries++) {
    const first = readIfThere(`/proc/${pid}/task/${pid}/children`).trim().split(' ')[0] ?? '';
    if (first !== '' && readIfThere(`/proc/${first}/cmdline`) === `${command.join('\0')}\0`) return Number(first);
    await sleep(20);
  }
  throw new Error(`expected ${command.join(' ')} in a chamber, found: ${output() === '' ? 'nothing' : output()}`);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function runIn(first: number): Chamber['run'] {
  return async (command, { env: extra = {}, limitMs = 20_000 } = {}) => {
    const spaces = ['-t', String(first), '-U', '-m', '-p', '-n', '-u', '-i', '-r', '-w', '-S', '0', '-G', '0'];
    const child = spawn('nsenter', [...spaces, '--', ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...env, ...extra },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('latin1').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('latin1').on('data', (text: string) => (stderr += text));
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, limitMs);
    // Not `close`: a daemon left behind holds the pipes.
    const [exitCode] = (await once(child, 'exit')) as [number | null];
    clearTimeout(timer);
    await sleep(5);
    return { stdout, stderr, exitCode, timedOut };
  };
}
