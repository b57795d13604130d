// The freeze path's options from the agent's settings. A hook given as qemu-ga's -F comes before all other writers. The
// stock dispatcher is replaced by its .d folder, so that nothing runs twice; any other program becomes the one writer of
// a folder in the runtime directory, by a link that is followed and checked like every writer.
import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { CoordinatorOptions, FreezeLog } from '../freeze/options.js';
import { defaultWriterFolders, dispatcherFolder, type WriterFolder } from '../freeze/writer-folders.js';
import type { BridgeConfiguration } from './configuration.js';

interface FreezeSettings {
  readonly bridge: BridgeConfiguration;
  readonly fsfreezeHook?: string;
}

/** Makes the folder for a hook of its own. Throws what the file system throws. */
export function coordinatorOptions(
  { bridge, fsfreezeHook }: FreezeSettings,
  log: FreezeLog,
): CoordinatorOptions & { readonly writerFolders: readonly WriterFolder[] } {
  const runtimeDir = bridge['runtime-dir'];
  return {
    runtimeDir,
    freezerPath: bridge.freezer,
    writerFolders: [...hookFolders(fsfreezeHook, runtimeDir), ...configuredFolders(bridge['writer-folders'])].filter(
      ({ path }, index, all) => all.findIndex((other) => other.path === path) === index,
    ),
    trustPlainHooks: bridge['trust-plain-hooks'],
    leaseMaxMs: bridge['lease-max-s'] * 1000,
    prepareBudgetMs: bridge['prepare-budget-s'] * 1000,
    holdBudgetMs: bridge['hold-budget-s'] * 1000,
    freezeLimitMs: bridge['freeze-limit-ms'],
    rules: {
      includeMountpoints: bridge['include-mountpoints'],
      includeTypes: bridge['include-types'],
      excludeMountpoints: bridge['exclude-mountpoints'],
      excludeTypes: bridge['exclude-types'],
    },
    expediteRcu: bridge['expedite-rcu'],
    log,
  };
}

/** `[bridge] writer-folders`, each with its style; without it, those that freeze/ knows. */
export function configuredFolders(paths: readonly string[] | undefined): readonly WriterFolder[] {
  if (paths === undefined) return defaultWriterFolders;
  return paths.map(
    (path) => defaultWriterFolders.find((known) => known.path === path) ?? { path, style: styleOf(path) },
  );
}

function hookFolders(hook: string | undefined, runtimeDir: string): readonly WriterFolder[] {
  const path = join(runtimeDir, 'hook.d');
  rmSync(path, { recursive: true, force: true });
  if (hook === undefined) return [];
  const dispatched = dispatcherFolder(hook);
  if (dispatched !== undefined) return [dispatched];
  mkdirSync(path, { recursive: true, mode: 0o755 });
  symlinkSync(hook, join(path, 'fsfreeze-hook'));
  return [{ path, style: 'qemu' }];
}

// QEMU's own layout, wherever it lies: its hooks expect the verb and nothing else.
function styleOf(path: string): WriterFolder['style'] {
  return /^qemu(-ga)?$/.test(basename(dirname(path))) ? 'qemu' : 'bridge';
}
