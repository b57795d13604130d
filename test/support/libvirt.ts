// A real libvirtd of a test's own, without systemd. It lives in a mount namespace where its folders (/etc/libvirt,
// /var/lib/libvirt ...) are a scratch folder's, so that it meets no other libvirtd of the machine. Its process namespace
// ends with the test, however that ends, and its QEMUs with it. It has unix sockets only, and needs root.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { cacheDirectory } from '../../src/testing/cache.js';
import { removeFolder } from '../../src/testing/guest-folder.js';

/** The needs of a test that boots a domain: for `requires`. */
export const LIBVIRT_NEEDS = ['root', 'libvirtd', 'virsh', 'qemu-system-x86_64', 'qemu-img', 'mmdebstrap'] as const;

export interface VirshResult {
  /** undefined if it was killed at its limit. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

const QEMU_CONF = `user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
swtpm_user = "root"
swtpm_group = "root"
`;

// $1: the scratch folder, $2: the cache. The images in it are below every overlay of a domain, and a deep blockcommit
// would write them: nobody in here can. The shell stays: as the first of its process namespace it reaps what is left.
const INSIDE = `set -eu
mkdir -p "$2/libvirt"
for name in etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt run/libvirt; do
  mkdir -p "/$name" "$1/tree/$name"
done
# swtpm's certificates and logs.
if command -v swtpm >/dev/null; then
  for name in var/lib/swtpm-localca var/log/swtpm; do
    mkdir -p "/$name" "$1/tree/$name"
    mount --bind "$1/tree/$name" "/$name"
  done
fi
# libvirtd wants its default user to exist, whatever its configuration says, and libvirt-daemon-system makes it.
for name in passwd group; do
  cp "/etc/$name" "$1/$name"
  grep -q '^libvirt-qemu:' "$1/$name" || sed -n 's/^nogroup:/libvirt-qemu:/p; s/^nobody:/libvirt-qemu:/p' "/etc/$name" >>"$1/$name"
  mount --bind "$1/$name" "/etc/$name"
done
mount --bind "$2/libvirt" /var/cache/libvirt
for name in etc/libvirt var/lib/libvirt var/log/libvirt run/libvirt; do
  mount --bind "$1/tree/$name" "/$name"
done
mount --bind "$2" "$2"
mount -o remount,ro,bind "$2"
libvirtd -f "$1/libvirtd.conf" --pid-file "$1/libvirtd.pid" &
wait
`;

const START_LIMIT_MS = 60_000;

export class LibvirtHost implements AsyncDisposable {
  /** Removed at disposal, unless FSB_INSPECT=1. Short: sockets lie in it. */
  readonly dir: string;
  /** For `virsh -c` and whatever else speaks libvirt, from outside too. */
  readonly uri: string;
  readonly #process: ChildProcess;

  private constructor(dir: string, process: ChildProcess) {
    this.dir = dir;
    this.uri = uriOf(dir);
    this.#process = process;
  }

  /** Starts libvirtd and waits until it answers. The first start on a machine probes QEMU, about 8 s. */
  static async start(): Promise<LibvirtHost> {
    const dir = await mkdtemp(path.join(tmpdir(), 'fsbv-'));
    await mkdir(path.join(dir, 'tree/etc/libvirt'), { recursive: true });
    await mkdir(cacheDirectory(), { recursive: true });
    await writeFile(path.join(dir, 'tree/etc/libvirt/qemu.conf'), QEMU_CONF);
    await writeFile(path.join(dir, 'libvirtd.conf'), daemonConfiguration(dir));
    await using log = await open(path.join(dir, 'output.log'), 'a');
    const namespaces = ['--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc'];
    const words = ['--pdeathsig', 'KILL', '--', 'unshare', ...namespaces, 'sh', '-c', INSIDE, 'sh'];
    const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
    // No system bus: systemd of this machine is not asked for scopes, nor a firewall for rules.
    const env = { ...process.env, PATH, DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/nonexistent' };
    const child = spawn('setpriv', [...words, dir, cacheDirectory()], { stdio: ['ignore', log.fd, log.fd], env });
    const host = new LibvirtHost(dir, child);
    try {
      await host.#answers();
    } catch (cause) {
      await host[Symbol.asyncDispose]();
      throw cause;
    }
    return host;
  }

  /** Runs virsh to its end; never throws for its exit code. */
  async virsh(
    words: readonly string[],
    { timeoutMs = 60_000 }: { readonly timeoutMs?: number } = {},
  ): Promise<VirshResult> {
    const { exitCode, stdout, stderr } = await execa('virsh', ['-c', this.uri, ...words], {
      stdin: 'ignore',
      reject: false,
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      env: { LC_ALL: 'C' },
    });
    return { exitCode, stdout: stdout.trim(), stderr: stderr.trim() };
  }

  /** The same where only success makes sense; gives what it printed. */
  async run(words: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.virsh(words);
    if (exitCode !== 0) throw new Error(`virsh ${words.join(' ')}: ${String(exitCode)}: ${stderr || stdout}`);
    return stdout;
  }

  /** A file with this text, for commands that take XML. Removed with the folder. */
  async file(text: string): Promise<string> {
    const file = path.join(this.dir, `${crypto.randomUUID()}.xml`);
    await writeFile(file, text);
    return file;
  }

  /** Stops libvirtd, or lets it go on; its QEMUs run. */
  async signal(signal: 'STOP' | 'CONT'): Promise<void> {
    const own = `libvirtd\0-f\0${path.join(this.dir, 'libvirtd.conf')}\0`;
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (!command.startsWith(own)) continue;
      process.kill(Number(pid), `SIG${signal}`);
      return;
    }
    throw new Error(`libvirtd of ${this.dir} does not run`);
  }

  /** The text that libvirtd logged, the agent's commands and replies among it. */
  async log(): Promise<string> {
    return await readFile(path.join(this.dir, 'libvirtd.log'), 'utf8').catch(() => '');
  }

  /** Ends libvirtd and all domains as a power cut would, and removes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = new Promise((resolve) => this.#process.once('exit', resolve));
      // It is unshare; the first of the process namespace dies with it, and with that one all others.
      this.#process.kill('SIGKILL');
      await ended;
    }
    await removeFolder(this.dir);
  }

  async #answers(): Promise<void> {
    const end = performance.now() + START_LIMIT_MS;
    for (;;) {
      const { exitCode, stderr } = await this.virsh(['capabilities'], { timeoutMs: START_LIMIT_MS });
      if (exitCode === 0) return;
      if (performance.now() > end || this.#process.exitCode !== null) {
        const output = await readFile(path.join(this.dir, 'output.log'), 'utf8');
        throw new Error(`libvirtd does not answer: ${stderr}; it says: ${output.slice(-1500)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** The process id, on the machine, of the QEMU that has files of this folder: it lives in a process namespace of its own. */
export async function qemuOf(dir: string): Promise<number> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (/^[^\0]*qemu-system/.test(command) && command.includes(`${dir}/`)) return Number(pid);
  }
  throw new Error(`no QEMU has ${dir} on its command line`);
}

function uriOf(dir: string): string {
  return `qemu+unix:///system?socket=${path.join(dir, 'libvirt-sock')}`;
}

function daemonConfiguration(dir: string): string {
  return `unix_sock_dir = "${dir}"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "${crypto.randomUUID()}"
log_filters = "1:qemu.qemu_agent 3:*"
log_outputs = "1:file:${path.join(dir, 'libvirtd.log')}"
`;
}
