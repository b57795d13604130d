// Writes XML into files for virsh, which takes it from nowhere else.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface XmlFiles extends AsyncDisposable {
  /** In the order of the texts. */
  readonly files: readonly string[];
}

/** They are removed when it is disposed. */
export async function xmlFiles(...texts: readonly string[]): Promise<XmlFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'fsfreeze-bridge-'));
  const remove = async (): Promise<void> => {
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const files: string[] = [];
    for (const [index, text] of texts.entries()) {
      const file = join(folder, `${index}.xml`);
      await writeFile(file, text);
      files.push(file);
    }
    return { files, [Symbol.asyncDispose]: remove };
  } catch (error) {
    await remove();
    throw error;
  }
}
