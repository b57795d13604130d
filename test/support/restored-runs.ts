// Restores runs of a repository, and compares them byte for byte with what the VM's disks held at their cut.
import { execa } from 'execa';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { diskStem } from '../../src/host/repository/layout.js';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import type { Run } from './run-tool.js';

/** What disks hold, by their ids. */
export type State = ReadonlyMap<string, Buffer>;

export interface BackedUp {
  readonly repository: string;
  /** Of runs that are encrypted. */
  readonly keyFile?: string | undefined;
  /** The folder of the VM in it, or of a file in that. */
  stored(...names: readonly string[]): string;
  /** A file for a test's own use. */
  path(name: string): string;
  /** `backup`, on the repository. */
  backup(...words: readonly string[]): Promise<Run>;
}

/** By the tool; its own word if it does not restore the run. */
export async function restoredByTool(
  vm: BackedUp,
  run: string,
  state: State,
): Promise<{ readonly refusal: string | undefined; readonly different: string[] }> {
  const target = vm.path(`restored-${crypto.randomUUID()}`);
  const key = vm.keyFile === undefined ? [] : ['--key-file', vm.keyFile];
  const restored = await vm.backup('restore', run, target, '--format', 'raw', ...key);
  if (restored.error.code !== 'none') return { refusal: restored.error.message, different: [] };
  const all = manifestOf(vm, run).disks.map(({ id, file }) => {
    return difference(id, readFileSync(join(target, `${diskStem(file.name)}.raw`)), state.get(id));
  });
  rmSync(target, { recursive: true });
  return { refusal: undefined, different: all.filter((text) => text !== undefined) };
}

/** By the command line in the manifest, without our tool. */
export async function restoredByHand(vm: BackedUp, run: string, state: State): Promise<string[]> {
  const found: string[] = [];
  for (const { id, file, restore } of manifestOf(vm, run).disks) {
    const target = vm.path(`by-hand-${crypto.randomUUID()}.qcow2`);
    const line = restore
      .replace(`/restored/${diskStem(file.name)}.qcow2`, target)
      .replace('/KEYFILE', vm.keyFile ?? '');
    await execa('sh', ['-c', line], { cwd: vm.repository });
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', target, `${target}.raw`]);
    const text = difference(id, readFileSync(`${target}.raw`), state.get(id));
    if (text !== undefined) found.push(text);
  }
  return found;
}

function manifestOf(vm: BackedUp, run: string): RunManifest {
  return JSON.parse(readFileSync(vm.stored(run, 'manifest.json'), 'utf8')) as RunManifest;
}

/** Undefined if there is none. */
export function difference(disk: string, found: Buffer, expected: Buffer | undefined): string | undefined {
  if (expected === undefined) return `disk ${disk}: nothing is expected of it`;
  if (found.length !== expected.length) return `disk ${disk}: ${found.length} bytes, expected ${expected.length}`;
  if (found.equals(expected)) return undefined;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  return `disk ${disk}: byte ${at} is ${found[at] ?? 0}, expected ${expected[at] ?? 0}`;
}
