// A guest on User Mode Linux: a real kernel that runs as a process, at native speed and without any /dev/kvm. Its disks
// are raw files (ubd), the agent's port is a serial line, a folder of the host's reaches it by hostfs. boot-user-mode.ts
// boots it.
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BridgeError } from '../../errors.js';
import { describeDisk, type GuestDisk } from '../disks.js';
import { checkDiskName, Guest, type GuestParts, type HotplugOptions } from '../guest.js';
import type { ExecOptions, ExecResult, GuestProcess } from '../guest-exec.js';
import type { KernelVersion } from '../recipes.js';
import { askConsole } from './console.js';

const MOST_DISKS = 16;
const SHARED = '/run/fsb/shared';

/** The device of the disk that is plugged in here. */
function ubdDevice(index: number): string {
  return `/dev/ubd${String.fromCharCode('a'.charCodeAt(0) + index)}`;
}

/** Uses the old mount(2): the newer calls split the options, and hostfs's path is an option without a name. */
const MOUNT = 'LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs';

export class UserModeGuest extends Guest {
  readonly kind = 'user-mode';
  readonly kernel: KernelVersion;
  /** @internal */
  protected readonly blankFormat = 'raw';
  readonly #consoleSocket: string;
  #isShared = false;

  /** Use `bootGuest`. `process` is the kernel's, not that of the namespace around it. @internal */
  constructor(parts: GuestParts & { readonly kernel: KernelVersion }) {
    super(parts);
    this.kernel = parts.kernel;
    this.#consoleSocket = parts.paths.managementPath;
  }

  /**
   * A folder of the host that the guest has mounted (hostfs), outside all its disks: what is written there is on neither
   * side of a cut.
   */
  async sharedFolder(): Promise<{ readonly host: string; readonly guest: string }> {
    const host = path.join(this.dir, 'shared');
    if (!this.#isShared) {
      await mkdir(host, { recursive: true });
      await this.exec(`mkdir -p ${SHARED} && ${MOUNT} -o ${host} none ${SHARED}`);
      this.#isShared = true;
    }
    return { host, guest: SHARED };
  }

  /** Copies through a hostfs that is mounted for it. */
  async copyIn(sources: readonly string[], guestDirectory: string): Promise<void> {
    const host = path.join(this.dir, 'copy-in');
    await mkdir(host);
    try {
      for (const source of sources) await cp(source, path.join(host, path.basename(source)), { recursive: true });
      const mount = `m=$(mktemp -d /run/copy-in-XXXXXX) && ${MOUNT} -o ${host},ro none $m`;
      const copy = `mkdir -p "$0" && tar -C $m --owner=0 --group=0 -c . | tar -C "$0" -x --no-overwrite-dir`;
      const script = `${mount} && { ${copy}; code=$?; umount $m; rmdir $m; exit $code; }`;
      await this.exec(['/bin/sh', '-c', script, guestDirectory], { timeoutMs: 120_000 });
    } finally {
      await rm(host, { recursive: true, force: true });
    }
  }

  override async exec(command: string | readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const { input, ...limits } = options;
    if (fitsTheLine(command, input)) return await super.exec(command, options);
    return await this.#byFile(command, input, async (line) => await super.exec(line, limits));
  }

  override async start(
    command: string | readonly string[],
    { input }: { readonly input?: string } = {},
  ): Promise<GuestProcess> {
    if (fitsTheLine(command, input)) return await super.start(command, input === undefined ? {} : { input });
    return await this.#byFile(command, input, async (line) => await super.start(line));
  }

  /** Has the guest read a command from a folder of the host: it is too long for the serial line. `run` gets a line for that. */
  async #byFile<T>(
    command: string | readonly string[],
    input: string | undefined,
    run: (line: string) => Promise<T>,
  ): Promise<T> {
    const host = await mkdtemp(path.join(this.dir, 'long-'));
    const text = typeof command === 'string' ? command : `exec ${command.map(quoted).join(' ')}`;
    await writeFile(path.join(host, 'command'), text);
    await writeFile(path.join(host, 'input'), input ?? '');
    const line = `d=$(mktemp -d /run/long-XXXXXX) && mkdir $d/m && ${MOUNT} -o ${host},ro none $d/m &&
      cp $d/m/* $d && umount $d/m && c=$(cat $d/command) && exec <$d/input && rm -r $d && : >/run/${path.basename(host)} &&
      exec /bin/sh -c "$c"`;
    const result = await run(line);
    await super.exec(`until rm /run/${path.basename(host)} 2>/dev/null; do sleep 0.01; done`);
    await rm(host, { recursive: true });
    return result;
  }

  async hotplugDisk(file: string, { name, format = 'raw', readOnly = false }: HotplugOptions): Promise<GuestDisk> {
    checkDiskName(name);
    const index = Array.from({ length: MOST_DISKS }, (_, free) => free).find(
      (free) => !this.disks.some((disk) => disk.path === ubdDevice(free)),
    );
    if (index === undefined || format !== 'raw') {
      const found = index === undefined ? `${this.disks.length} disks` : format;
      throw new BridgeError(
        'E_UBD',
        `disk ${name}: expected a raw file and less than ${MOST_DISKS} disks, found ${found}`,
      );
    }
    const disk = await describeUbd(name, path.resolve(file), index, readOnly);
    await askConsole(this.#consoleSocket, `config ubd${index}${readOnly ? 'r' : ''}=${disk.file}`);
    this.attached.push(disk);
    await this.exec(`until [ -b ${disk.path} ]; do sleep 0.01; done; udevadm settle`);
    return disk;
  }

  async unplugDisk(name: string): Promise<void> {
    const disk = this.disk(name);
    await askConsole(this.#consoleSocket, `remove ${disk.device}`);
    this.attached.splice(this.attached.indexOf(disk), 1);
  }

  /** Its time goes on meanwhile. */
  async pause(): Promise<void> {
    process.kill(this.pid, 'SIGSTOP');
    await Promise.resolve();
  }

  async resume(): Promise<void> {
    process.kill(this.pid, 'SIGCONT');
    await Promise.resolve();
  }
}

/** In bytes, roughly: so much may wait on the line for a reader that is not run for a moment. */
const LONGEST_REQUEST = 2500;

function fitsTheLine(command: string | readonly string[], input = ''): boolean {
  return JSON.stringify(command).length + (input.length * 4) / 3 < LONGEST_REQUEST;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Describes a disk as attached under `name` at the place `index`. */
export async function describeUbd(name: string, file: string, index: number, readOnly = false): Promise<GuestDisk> {
  const disk = await describeDisk(name, { file, format: 'raw' }, { readOnly });
  return { ...disk, device: `ubd${index}`, path: ubdDevice(index) };
}
