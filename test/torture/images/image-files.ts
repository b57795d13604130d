// Image files read as a person would read them: whole chains through qemu-img, also while a quiet QEMU has them open.
import { execa } from 'execa';
import { readFile, rm } from 'node:fs/promises';
import { realOrSame } from './says.js';
import { contentOf, type Content } from './contents.js';

export interface NamedImage {
  readonly file: string;
  readonly format: string;
}

let count = 0;

/** What the image holds, the layers below included. Throws if it cannot be read. `folder`: for what is read meanwhile. */
export async function readImage({ file, format }: NamedImage, folder: string): Promise<Content> {
  if (format === 'raw') return contentOf(await readFile(file));
  const raw = `${folder}/read-${count++}.raw`;
  try {
    await execa('qemu-img', ['convert', '-U', '-t', 'unsafe', '-f', format, '-O', 'raw', file, raw]);
    return contentOf(await readFile(raw));
  } finally {
    await rm(raw, { force: true });
  }
}

/** The files of the layers below the image, resolved. */
export async function layersBelow({ file, format }: NamedImage): Promise<readonly string[]> {
  if (format === 'raw') return [];
  const args = ['info', '-U', '--backing-chain', '--output=json', '-f', format, file];
  const { stdout } = await execa('qemu-img', args, { reject: false });
  try {
    const chain = JSON.parse(stdout) as readonly { readonly filename: string }[];
    return chain.slice(1).map(({ filename }) => realOrSame(filename));
  } catch {
    return []; // a layer is gone: whoever reads the image will say so
  }
}
