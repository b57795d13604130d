// Names the files of a disk's chain to qemu-img and QEMU: each by its record, whatever its header says, and with the key of
// those that are encrypted.
import { imageName, type OpenLayer } from '../images/layers.js';
import { KEY_ID } from '../images/luks-key.js';
import type { DiskFile } from './run-manifest.js';

/** A qcow2 image. */
export interface ChainFile {
  readonly file: string;
  /** It lies in a LUKS file. */
  readonly encryption?: DiskFile['encryption'];
}

/** The node that an image lies in, in QEMU's words; `options` are those of the file itself. */
export function fileNode({ file, encryption }: ChainFile, options: object = {}): object {
  const protocol = { driver: 'file', filename: file, ...options };
  return encryption === undefined ? protocol : { driver: 'luks', 'key-secret': KEY_ID, ...options, file: protocol };
}

/** The name of one image, without what lies below it. */
export function chainLayer(file: ChainFile): string {
  return `json:${JSON.stringify({ driver: 'qcow2', file: fileNode(file) })}`;
}

/** The name by which qemu-img opens the chain, the newest first; what is encrypted with its key (TaskLimits). */
export function chainName(files: readonly ChainFile[]): string {
  return imageName(
    files.map((each): OpenLayer => {
      return { file: each.file, format: 'qcow2', isDevice: false, name: chainLayer(each) };
    }),
  );
}

/** A key is needed to read them. */
export function needsKey(files: readonly ChainFile[]): boolean {
  return files.some(({ encryption }) => encryption !== undefined);
}
