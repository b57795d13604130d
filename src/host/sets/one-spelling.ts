// Brings sets to one spelling whose manifests name one file in several ways: the VM was started through another path
// between two cuts.
import { fileKey } from '../images/same-file.js';
import type { Manifest } from './manifest.js';

/** The sets, each overlay named everywhere as its own set names it. */
export async function inOneSpelling(manifests: readonly Manifest[]): Promise<Manifest[]> {
  const names = new Map<string, string>();
  for (const { disks } of manifests) {
    for (const { overlay, merged } of disks) if (!merged) names.set(await fileKey(overlay.file), overlay.file);
  }
  const spelled = async <L extends { readonly file: string }>(layer: L): Promise<L> => {
    const file = names.get(await fileKey(layer.file));
    return file === undefined ? layer : { ...layer, file };
  };
  return await Promise.all(
    manifests.map(async (manifest) => ({
      ...manifest,
      disks: await Promise.all(
        manifest.disks.map(async (disk) => ({
          ...disk,
          base: await spelled(disk.base),
          ...(disk.below === undefined ? {} : { below: await Promise.all(disk.below.map(spelled)) }),
        })),
      ),
    })),
  );
}
