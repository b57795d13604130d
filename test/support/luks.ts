// Encrypted images for tests, their secret `s0`, the key stretched for as short as can be.
import { execa } from 'execa';

/** The secret, as a word for qemu-img and qemu-io, and the object itself for QEMU. */
export const LUKS_OBJECT = 'secret,id=s0,data=abc123';

/** Makes an empty one of 16 MiB: qcow2 with LUKS in it, or LUKS with raw data in it. */
export async function makeLuks(file: string, format: 'qcow2' | 'luks' = 'qcow2'): Promise<void> {
  const options = {
    qcow2: 'encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=1',
    luks: 'key-secret=s0,iter-time=1',
  };
  const words = ['create', '-q', '--object', LUKS_OBJECT, '-f', format, '-o', options[format], file, '16M'];
  for (let triesLeft = 50; ; triesLeft--) {
    const { exitCode, stderr } = await execa('qemu-img', words, { reject: false });
    if (exitCode === 0) return;
    // It measures how fast it is, and may see no time pass on a machine that counts processor time in ticks.
    if (triesLeft === 0 || !stderr.includes('accurate CPU usage')) throw new Error(`qemu-img: ${stderr}`);
  }
}

/** Words for a QEMU that opens the image as disk `luks0`. */
export const luksWords = (file: string): string[] => [
  '-object',
  LUKS_OBJECT,
  '-blockdev',
  `driver=qcow2,node-name=node-luks0,encrypt.format=luks,encrypt.key-secret=s0,file.driver=file,file.filename=${file}`,
  '-device',
  'virtio-blk-pci,id=luks0,drive=node-luks0,serial=luks0',
];

/** Makes the image `luks0.qcow2` in the folder; gives those words. */
export async function luksDisk(images: string): Promise<string[]> {
  const file = `${images}/luks0.qcow2`;
  await makeLuks(file);
  return luksWords(file);
}

/** True if it holds the pattern in its first 64 KiB, read as a VM would that is started from it with the secret. */
export async function luksHolds(file: string, pattern: number): Promise<boolean> {
  const options = `driver=qcow2,encrypt.key-secret=s0,file.filename=${file}`;
  const words = ['--object', LUKS_OBJECT, '-r', '-U', '--image-opts', '-c', `read -P ${pattern} 0 64k`, options];
  const { stdout, stderr } = await execa('qemu-io', words, { reject: false });
  if (!stdout.includes('read 65536/65536')) throw new Error(`qemu-io: ${stdout} ${stderr}`);
  return !stdout.includes('verification failed');
}
