// Makes the freeze path's options of the agent's settings. A hook given as qemu-ga's -F comes before all other writers.
import { basename, dirname } from 'node:path';
import { foldersWithHook } from '../freeze/writers/dispatcher.js';
import type { CoordinatorOptions, FreezeLog } from '../freeze/options.js';
import { defaultWriterFolders, type WriterFolder } from '../freeze/writers/folders.js';
import type { BridgeConfiguration } from './configuration.js';

interface FreezeSettings {
  readonly bridge: BridgeConfiguration;
  readonly fsfreezeHook?: string;
}

export function coordinatorOptions(
  { bridge, fsfreezeHook }: FreezeSettings,
  log: FreezeLog,
): CoordinatorOptions & { readonly writerFolders: readonly WriterFolder[] } {
  return {
    runtimeDir: bridge['runtime-dir'],
    freezerPath: bridge.freezer,
    writerFolders: foldersWithHook(fsfreezeHook, configuredFolders(bridge['writer-folders'])),
    trustPlainHooks: bridge['trust-plain-hooks'],
    leaseMaxMs: bridge['lease-max-s'] * 1000,
    prepareBudgetMs: bridge['prepare-budget-s'] * 1000,
    plainPrepareMs: bridge['plain-prepare-s'] * 1000,
    holdBudgetMs: bridge['hold-budget-s'] * 1000,
    plainHookLimitMs: bridge['plain-hook-s'] * 1000,
    hookFailure: bridge['hook-failure'],
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

/** The folders of `[bridge] writer-folders`, each with its style; without that setting, those that freeze/ knows. */
export function configuredFolders(paths: readonly string[] | undefined): readonly WriterFolder[] {
  if (paths === undefined) return defaultWriterFolders;
  return paths.map(
    (path) => defaultWriterFolders.find((known) => known.path === path) ?? { path, style: styleOf(path) },
  );
}

// QEMU's own layout, wherever it lies: hooks in it expect the verb and nothing else.
function styleOf(path: string): WriterFolder['style'] {
  return /^qemu(-ga)?$/.test(basename(dirname(path))) ? 'qemu' : 'bridge';
}
