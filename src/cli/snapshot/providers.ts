// `fsfreeze-snapshot providers`: for each filesystem, which provider would cut it, and why the others would not.
import type { SnapshotMachine } from '../../snapshot/machine.js';
import { readSources } from '../../snapshot/sources.js';
import { volumeOf } from '../../snapshot/volume.js';

export interface ProviderList {
  /** In the order in which they are asked. */
  readonly providers: readonly string[];
  readonly filesystems: readonly {
    readonly mountpoint: string;
    readonly type: string;
    /** The one that would cut it; absent if none can. */
    readonly provider?: string;
    /** It is frozen by the agent first; else the provider freezes it. */
    readonly underFreeze?: boolean;
    readonly refused: readonly string[];
  }[];
}

/** Without paths, of all that is mounted. Throws what readSources() does. */
export async function listProviders({ options }: SnapshotMachine, paths: readonly string[]): Promise<ProviderList> {
  const { table, lookup } = await options.look('own');
  const filesystems =
    paths.length === 0
      ? table.filesystems
      : new Set(readSources(paths, table, 'trees').flatMap(({ filesystem }) => filesystem ?? []));
  const rows: ProviderList['filesystems'][number][] = [];
  for (const filesystem of filesystems) {
    const volume = volumeOf(filesystem, lookup.chainOf(filesystem));
    const refused: string[] = [];
    let chosen: { readonly provider: string; readonly underFreeze: boolean } | undefined;
    for (const provider of options.providers) {
      const probe = await provider.probe(volume);
      if (!probe.fits) refused.push(`${provider.name}: ${probe.reason}`);
      else chosen ??= { provider: provider.name, underFreeze: probe.underFreeze };
    }
    rows.push({ mountpoint: volume.mountpoint, type: volume.type, ...chosen, refused });
  }
  return { providers: options.providers.map(({ name }) => name), filesystems: rows };
}

/** Rows for people. */
export function describeProviders({ providers, filesystems }: ProviderList): string[] {
  return [
    `asked in this order: ${providers.join(', ')}`,
    ...filesystems.flatMap(({ mountpoint, type, provider, underFreeze, refused }) =>
      provider === undefined
        ? [`${mountpoint}  ${type}: cannot be snapshot`, ...refused.map((reason) => `  ${reason}`)]
        : [
            `${mountpoint}  ${type}: ${provider}, ${underFreeze === true ? 'while it is frozen' : 'which freezes it by itself'}`,
          ],
    ),
  ];
}
