// An encrypted image for tests: qcow2 with LUKS, its secret `s0`, the key stretched for as short as can be.
import { execa } from 'execa';

/** The secret, as a word for qemu-img and qemu-io, and the object itself for QEMU. */
export const LUKS_OBJECT = 'secret,id=s0,data=abc123';

/** Makes an empty one of 16 MiB. */
export async function makeLuks(file: string): Promise<void> {
  const options = 'encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=1';
  const words = ['create', '-q', '--object', LUKS_OBJECT, '-f', 'qcow2', '-o', options, file, '16M'];
  for (let triesLeft = 50; ; triesLeft--) {
    const { exitCode, stderr } = await execa('qemu-img', words, { reject: false });
    if (exitCode === 0) return;
    // Where processor time is counted in ticks, it may see none pass while it measures how fast it is.
    if (triesLeft === 0 || !stderr.includes('accurate CPU usage')) throw new Error(`qemu-img: ${stderr}`);
  }
}
