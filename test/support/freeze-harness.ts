// A coordinator over a fake machine and a fake freezer, with folders for writers: nothing of the real machine is
// frozen, opened or looked at.
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { createCoordinator } from '../../src/freeze/coordinator.js';
import type { CoordinatorOptions, LocalCoordinator } from '../../src/freeze/options.js';
import type { WriterFolder } from '../../src/freeze/writers/folders.js';
import { FakeFreezer, type FakeFreezerOptions } from './fake-freezer.js';
import { FakeMachine } from './fake-machine.js';

export class FreezeHarness implements AsyncDisposable {
  readonly dir: string;
  readonly machine: FakeMachine;
  /** The requests and acts of the freezer, and the lines that writers wrote into `$JOURNAL`, in order. */
  readonly journalPath: string;
  readonly disks: Readonly<Record<'root' | 'data', { readonly path: string; readonly device: string }>>;
  #freezer: FakeFreezer | undefined;
  #coordinator: LocalCoordinator | undefined;

  /** Two virtio disks: ext4 on `/` (serial ROOT), xfs on `/data` (serial DATA). */
  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'fsb-freeze-'));
    this.machine = new FakeMachine(this.dir);
    const root = this.machine.virtioDisk('vda', 2, 'ROOT');
    const data = this.machine.virtioDisk('vdb', 3, 'DATA');
    this.disks = { root, data };
    this.machine.mount({ device: root.device, mountpoint: '/', source: '/dev/vda' });
    this.machine.mount({ device: data.device, mountpoint: '/data', type: 'xfs', source: '/dev/vdb' });
    this.journalPath = join(this.dir, 'journal');
    writeFileSync(this.journalPath, '');
    for (const name of ['run', ...folderNames]) mkdirSync(join(this.dir, name), { mode: 0o755 });
  }

  get folders(): readonly WriterFolder[] {
    const style = { first: 'bridge', qemu: 'qemu', dragonsdawn: 'dragonsdawn', shipped: 'bridge' } as const;
    const ours = { shipped: true };
    return folderNames.map((name) => ({
      path: join(this.dir, name),
      style: style[name],
      ...(name === 'shipped' ? ours : {}),
    }));
  }

  get freezer(): FakeFreezer {
    if (this.#freezer === undefined) throw new Error('start() comes first');
    return this.#freezer;
  }

  get coordinator(): LocalCoordinator {
    if (this.#coordinator === undefined) throw new Error('start() comes first');
    return this.#coordinator;
  }

  async start(freezer: FakeFreezerOptions = {}, options: CoordinatorOptions = {}): Promise<LocalCoordinator> {
    await this.restartFreezer(freezer);
    this.#coordinator = createCoordinator({ ...this.options, ...options });
    return this.#coordinator;
  }

  async restartFreezer(freezer: FakeFreezerOptions = {}): Promise<void> {
    await this.#freezer?.close();
    rmSync(join(this.dir, 'run/freezer.sock'), { force: true });
    this.#freezer = await FakeFreezer.listen(join(this.dir, 'run/freezer.sock'), {
      log: (line) => {
        writeFileSync(this.journalPath, `freezer ${line}\n`, { flag: 'a' });
      },
      ...freezer,
    });
  }

  get options(): CoordinatorOptions {
    const { sysRoot, udevRoot, mountinfoPath } = this.machine;
    const swapsPath = join(this.dir, 'swaps');
    return {
      runtimeDir: join(this.dir, 'run'),
      writerFolders: this.folders,
      sysRoot,
      udevRoot,
      mountinfoPath,
      swapsPath,
    };
  }

  /** A shell script; `log WORDS` in it writes to the journal. Gives its path. */
  hook(name: string, body: string, folder: (typeof folderNames)[number] = 'first'): string {
    const path = join(this.dir, folder, name);
    const comment = body.startsWith('#') ? '' : '\n';
    writeFileSync(
      path,
      `#!/bin/sh\n${body.startsWith('#') ? headOf(body) : ''}${comment}log() { echo "$FSFREEZE_PHASE ${name}\${*:+ $*}" >>'${this.journalPath}'; }\n${restOf(body)}\n`,
    );
    chmodSync(path, 0o755);
    return path;
  }

  /** Lines of the journal; `freezer` lines only as FIFREEZE and FITHAW. */
  get journal(): string[] {
    return readFileSync(this.journalPath, 'utf8')
      .split('\n')
      .filter((line) => line !== '' && (!line.startsWith('freezer ') || /FIFREEZE|FITHAW/.test(line)))
      .map((line) => line.replace(/^freezer /, ''));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#coordinator?.close().catch(() => undefined);
    await this.#freezer?.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const folderNames = ['first', 'qemu', 'dragonsdawn', 'shipped'] as const;

function headOf(body: string): string {
  return body
    .split('\n')
    .filter((line) => line.startsWith('#'))
    .map((line) => `${line}\n`)
    .join('');
}

function restOf(body: string): string {
  return body
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n');
}

/** The description lines of a writer, `described({ rank: 30 })`. */
export function described(fields: Readonly<Record<string, string | number | boolean>>): string {
  return Object.entries({ phases: 'freeze verify thaw', guarantee: 'held', ...fields })
    .filter(([, value]) => value !== '')
    .map(([key, value]) => `# fsfreeze-writer: ${key}=${value}\n`)
    .join('');
}
