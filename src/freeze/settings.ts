// CoordinatorOptions with every default filled in.
import { join } from 'node:path';
import { machineViewer } from '../linux/machine-view.js';
import { defaultOptions, silentLog, type CoordinatorOptions } from './options.js';
import { noRules } from './judgement/rules.js';
import { defaultWriterFolders } from './writers/folders.js';

export type Settings = ReturnType<typeof withDefaults>;

export function withDefaults(options: CoordinatorOptions) {
  const given = { ...defaultOptions, ...options };
  const { runtimeDir } = given;
  return {
    ...given,
    // A given mount table stands for the whole machine: other namespaces are looked at only where they are given too.
    view:
      options.view ??
      machineViewer({
        ...given,
        procRoot: options.procRoot ?? (options.mountinfoPath === undefined ? '/proc' : undefined),
      }),
    socketPath: options.freezerSocket ?? join(runtimeDir, 'freezer.sock'),
    markerPath: options.markerPath ?? join(runtimeDir, 'frozen'),
    freezerPath: options.freezerPath,
    writerFolders: options.writerFolders ?? defaultWriterFolders,
    writerOwner: options.writerOwner ?? process.getuid?.() ?? 0,
    writerLimitsMs: options.writerLimitsMs ?? {},
    rules: options.rules ?? noRules,
    log: options.log ?? silentLog,
    onHold: options.onHold ?? (() => undefined),
    onReleased: options.onReleased ?? (() => undefined),
    onWritable: options.onWritable ?? (() => undefined),
  };
}
