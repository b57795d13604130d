// A firmware that writes one sector of the first IDE disk at each reset, by programmed I/O, and halts: a write that comes
// from the vCPU, as a guest's does, so that QEMU does with a failure what `werror` says.

/** Where it writes: 512 bytes of 0x42. */
export const WRITTEN_SECTOR = 14 * 2048;

export function writingFirmware(): Buffer {
  const firmware = Buffer.alloc(65_536);
  const [low, middle, high] = [WRITTEN_SECTOR & 0xff, (WRITTEN_SECTOR >> 8) & 0xff, WRITTEN_SECTOR >> 16];
  const code = [
    ...[0xba, 0xf6, 0x01, 0xb0, 0xe0, 0xee], // the first disk, LBA
    ...[0xba, 0xf2, 0x01, 0xb0, 0x01, 0xee], // one sector
    ...[0x42, 0xb0, low, 0xee, 0x42, 0xb0, middle, 0xee, 0x42, 0xb0, high, 0xee],
    ...[0xba, 0xf7, 0x01, 0xb0, 0x30, 0xee], // WRITE SECTORS
    ...[0xec, 0xa8, 0x08, 0x74, 0xfb], // until it wants the data
    ...[0xb9, 0x00, 0x01, 0xba, 0xf0, 0x01, 0xb8, 0x42, 0x42, 0xef, 0xe2, 0xfd], // 256 words
    ...[0xfa, 0xf4, 0xeb, 0xfd], // halt
  ];
  Buffer.from(code).copy(firmware, 0xf000);
  // The first instruction: a jump there.
  Buffer.from([0xe9, 0x0d, 0xf0]).copy(firmware, 0xfff0);
  return firmware;
}
