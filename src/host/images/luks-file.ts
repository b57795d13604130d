// Makes a LUKS file around some bytes, with their key: the file is opened by QEMU, qemu-img and cryptsetup. Not by
// `qemu-img create`, which measures for two seconds of processor time how fast this host stretches keys, whatever it is
// told, and fails where processor time is counted in ticks. Specification: LUKS1 On-Disk Format Specification 1.2.3. The
// layout is QEMU's.
import { createCipheriv, createHash, pbkdf2, randomBytes, randomUUID } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { LuksKey } from './luks-key.js';

/** How what it holds is encrypted, for people and for records. */
export const LUKS_CIPHER = 'aes-256-xts-plain64';
/** The first bytes of every LUKS file. */
export const LUKS_MAGIC = Buffer.from('LUKS\u{ba}\u{be}', 'latin1');

const SECTOR_BYTES = 512;
/** Two keys of AES-256, as XTS wants them. */
const KEY_BYTES = 64;
const HASH = 'sha256';
const HASH_BYTES = 32;
/** The key is spread over so many blocks on the disk, all of which are needed: one that is overwritten has gone. */
const STRIPES = 4000;
const SLOTS = 8;
const SLOT_ACTIVE = 0x00ac71f3;
const SLOT_EMPTY = 0x0000dead;
const FIRST_SLOT_SECTOR = 8;
/** Each begins with a block of 4 KiB. */
const SLOT_SECTORS = Math.ceil((KEY_BYTES * STRIPES) / 4096) * 8;
const PAYLOAD_SECTOR = FIRST_SLOT_SECTOR + SLOTS * SLOT_SECTORS;
const HEADER_BYTES = 592;
const SLOT_TABLE_OFFSET = 208;
const SLOT_ENTRY_BYTES = 48;
const SALT_BYTES = 32;
const DIGEST_BYTES = 20;
/** What this tells is 64 random bytes: nobody guesses those. */
const DIGEST_ITERATIONS = 1000;
/** Sectors that are written at once. */
const CHUNK_SECTORS = 2048;

/** Where the bytes begin, once encrypted. */
export const LUKS_HEADER_BYTES = PAYLOAD_SECTOR * SECTOR_BYTES;

const stretch = promisify(pbkdf2);

/**
 * Makes the file hold the bytes, filled up to whole sectors, whatever it held; it can be written to, and may grow. Throws
 * what write(2) does.
 */
export async function writeLuks(handle: FileHandle, key: LuksKey, bytes: Buffer): Promise<void> {
  const master = randomBytes(KEY_BYTES);
  const slotSalt = randomBytes(SALT_BYTES);
  const digestSalt = randomBytes(SALT_BYTES);
  const stretched = await stretch(key.bytes, slotSalt, key.iterations, KEY_BYTES, HASH);
  const header = headerOf({
    digest: await stretch(master, digestSalt, DIGEST_ITERATIONS, DIGEST_BYTES, HASH),
    digestSalt,
    slotSalt,
    iterations: key.iterations,
  });
  await handle.truncate(0);
  await handle.write(header, 0, header.length, 0);
  const slot = encrypted(split(master), stretched, 0);
  await handle.write(slot, 0, slot.length, FIRST_SLOT_SECTOR * SECTOR_BYTES);
  await handle.truncate(LUKS_HEADER_BYTES);
  for (let at = 0; at < bytes.length; at += CHUNK_SECTORS * SECTOR_BYTES) {
    const chunk = encrypted(bytes.subarray(at, at + CHUNK_SECTORS * SECTOR_BYTES), master, at / SECTOR_BYTES);
    await handle.write(chunk, 0, chunk.length, LUKS_HEADER_BYTES + at);
  }
}

interface HeaderParts {
  readonly digest: Buffer;
  readonly digestSalt: Buffer;
  readonly slotSalt: Buffer;
  readonly iterations: number;
}

function headerOf({ digest, digestSalt, slotSalt, iterations }: HeaderParts): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  LUKS_MAGIC.copy(header, 0);
  header.writeUInt16BE(1, 6);
  header.write('aes', 8, 'latin1');
  header.write('xts-plain64', 40, 'latin1');
  header.write(HASH, 72, 'latin1');
  header.writeUInt32BE(PAYLOAD_SECTOR, 104);
  header.writeUInt32BE(KEY_BYTES, 108);
  digest.copy(header, 112);
  digestSalt.copy(header, 132);
  header.writeUInt32BE(DIGEST_ITERATIONS, 164);
  header.write(randomUUID(), 168, 'latin1');
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = SLOT_TABLE_OFFSET + slot * SLOT_ENTRY_BYTES;
    header.writeUInt32BE(slot === 0 ? SLOT_ACTIVE : SLOT_EMPTY, at);
    header.writeUInt32BE(slot === 0 ? iterations : 0, at + 4);
    if (slot === 0) slotSalt.copy(header, at + 8);
    header.writeUInt32BE(FIRST_SLOT_SECTOR + slot * SLOT_SECTORS, at + 40);
    header.writeUInt32BE(STRIPES, at + 44);
  }
  return header;
}

/** The key as random blocks whose sum it is, each sum but the last one hashed ("AFsplit"). */
function split(key: Buffer): Buffer {
  const blocks = randomBytes(key.length * STRIPES);
  const sum = Buffer.alloc(key.length);
  for (let stripe = 0; stripe < STRIPES - 1; stripe++) {
    for (let at = 0; at < sum.length; at++) sum[at] = (sum[at] ?? 0) ^ (blocks[stripe * key.length + at] ?? 0);
    diffuse(sum);
  }
  for (let at = 0; at < sum.length; at++) {
    blocks[(STRIPES - 1) * key.length + at] = (sum[at] ?? 0) ^ (key[at] ?? 0);
  }
  return blocks;
}

function diffuse(block: Buffer): void {
  const number = Buffer.alloc(4);
  for (let at = 0; at < block.length; at += HASH_BYTES) {
    number.writeUInt32BE(at / HASH_BYTES);
    const part = block.subarray(at, at + HASH_BYTES);
    createHash(HASH).update(number).update(part).digest().copy(block, at);
  }
}

/** Whole sectors, each by its own number. */
function encrypted(bytes: Buffer, key: Buffer, firstSector: number): Buffer {
  const sectors = Math.ceil(bytes.length / SECTOR_BYTES);
  const whole = Buffer.alloc(sectors * SECTOR_BYTES);
  bytes.copy(whole);
  const number = Buffer.alloc(16);
  for (let sector = 0; sector < sectors; sector++) {
    number.writeBigUInt64LE(BigInt(firstSector + sector));
    const from = sector * SECTOR_BYTES;
    const part = whole.subarray(from, from + SECTOR_BYTES);
    createCipheriv('aes-256-xts', key, number).update(part).copy(whole, from);
  }
  return whole;
}
