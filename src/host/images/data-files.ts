// The external data files of an image of a VM that is shut off, as QEMU will find them.
import { UsageError } from '../../errors.js';
import { shellWord } from '../../shell-word.js';
import { backingOf, referencesOf } from './references.js';

/** A chain is no longer; the bound is for headers that name each other. */
const MAX_LAYERS = 256;

/**
 * The data files of the image itself. Throws a UsageError `E_NO_IMAGE` if it, or an image that it lies on, names one by a relative
 * path: QEMU takes that from the folder in which it is started, so that another file of the name would be read, or written.
 */
export async function ownDataFiles(image: {
  readonly file: string;
  readonly format: string;
}): Promise<readonly string[]> {
  let own: readonly string[] | undefined;
  let file: string | undefined = image.file;
  let format: string | undefined = image.format;
  for (let layer = 0; file !== undefined && format === 'qcow2' && layer < MAX_LAYERS; layer++) {
    const { dataFiles, relativeData, backingFormat } = await referencesOf(file);
    const [relative] = relativeData;
    if (relative !== undefined) throw notKnown(file, relative);
    own ??= dataFiles;
    file = await backingOf(file);
    format = backingFormat;
  }
  return own ?? [];
}

function notKnown(file: string, name: string): UsageError {
  const message = `${file} has its data in ${name}, a relative path, which QEMU takes from the folder it is started in`;
  const how = `in that folder, name it whole: qemu-img amend -f qcow2 -o data_file="$(realpath ${shellWord(name)})" ${shellWord(file)}`;
  return new UsageError('E_NO_IMAGE', `${message}: ${how}`);
}
