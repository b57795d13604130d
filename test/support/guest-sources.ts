// An environment for handlers, made of a folder: sysfs, /proc and a runtime directory under it, and tools that are played.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterEach } from 'vitest';
import type { ProgramOptions, ProgramResult, RunProgram } from '../../src/agent/program.js';
import type { Sources } from '../../src/agent/kernel-files.js';
import { BridgeError } from '../../src/errors.js';
import { machineViewer } from '../../src/linux/machine-view.js';

interface Call {
  readonly words: readonly string[];
  readonly input?: string;
}

export interface MadeUpGuest {
  readonly root: string;
  readonly sources: Sources;
  /** The commands that were run, in order. */
  readonly calls: readonly Call[];
  write(path: string, text: string | Uint8Array): void;
  /** A link to `target`, both in the folder; the target is made a folder if it is not there. */
  link(path: string, target: string): void;
}

/** Answers of tools by the words they are called with; an unknown one is not installed. */
export type Tools = Readonly<Record<string, Partial<ProgramResult> | undefined>>;

const roots: string[] = [];
// Runs after each test of the file that imports this one.
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true });
});

export const context = { origin: 'host', name: 'test' } as const;

export function madeUpGuest(tools: Tools = {}, compat: '10.2' | '7.2' = '10.2', run?: RunProgram): MadeUpGuest {
  const root = mkdtempSync(join(tmpdir(), 'fsb-made-up-'));
  roots.push(root);
  const calls: Call[] = [];
  const played: RunProgram = (file, args, { input }: ProgramOptions) => {
    const words = [file, ...args];
    calls.push({ words, ...(input === undefined ? {} : { input: Buffer.from(input).toString('latin1') }) });
    const answer = tools[words.join(' ')];
    if (answer === undefined) {
      const facts = { errno: 'ENOENT' };
      return Promise.reject(new BridgeError('E_NO_PROGRAM', `cannot run '${file}'`, { facts }));
    }
    const { stdout = '', output = stdout, ...rest } = answer;
    return Promise.resolve({ exitCode: 0, ...rest, stdout, output });
  };
  const write = (path: string, text: string | Uint8Array): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const folders = { sysRoot: join(root, 'sys'), procRoot: join(root, 'proc'), udevRoot: join(root, 'udev') };
  return {
    root,
    calls,
    sources: {
      compat,
      ...folders,
      view: machineViewer({
        sysRoot: folders.sysRoot,
        udevRoot: folders.udevRoot,
        mountinfoPath: join(folders.procRoot, 'self/mountinfo'),
      }),
      utmpPath: join(root, 'utmp'),
      runtimeDir: join(root, 'run'),
      run: run ?? played,
    },
    write,
    link(path, target) {
      mkdirSync(join(root, target), { recursive: true });
      mkdirSync(dirname(join(root, path)), { recursive: true });
      symlinkSync(relative(dirname(join(root, path)), join(root, target)), join(root, path));
    },
  };
}
