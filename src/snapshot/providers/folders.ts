// Finds the providers that are programs, and may be run as root: the administrator's word on a device or a path comes
// first, as in dragonsdawn-snapshot, then those for everything. What they are asked: external.ts.
import { join } from 'node:path';
import { isIgnoredName } from '../../freeze/writers/folders.js';
import { whyUnsafe } from '../../freeze/writers/safety.js';
import { namesIn } from '../../linux/kernel-values.js';
import type { Provider } from './provider.js';
import { ExternalProvider } from './external.js';

const ROOT_UID = 0;

const providerFolders = ['devices.d', 'directories.d', 'providers.d'].flatMap((name) => [
  `/etc/fsfreeze-bridge/${name}`,
  `/usr/lib/fsfreeze-bridge/${name}`,
]);

/** Those that root must not run are left out, and told of. Of two with one name the earlier one wins. */
export function findPrograms(folders: readonly string[] = providerFolders): readonly Provider[] {
  const found = new Map<string, string>();
  for (const folder of folders)
    for (const name of namesIn(folder))
      if (!isIgnoredName(name) && !found.has(name)) found.set(name, join(folder, name));
  return [...found].map(([name, path]) => new ExternalProvider(name, path, whyUnsafe(path, ROOT_UID)));
}
