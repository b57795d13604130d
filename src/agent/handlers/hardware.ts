// Processors and memory blocks through sysfs (Documentation/ABI/testing/sysfs-devices-system-cpu and -memory): tells
// which are on, switches them on and off. Texts and the counting of successes are qemu-ga's. It has an error for each
// read, so that the readers of src/linux/, which tell none, do not serve here.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '../../errors.js';
import type { Args, Returns } from '../../qga/commands.js';
import { refuse } from '../../qga/server.js';
import { RemoteError } from '../../rpc/errors.js';
import { errnoNumber, errnoText } from '../errno-text.js';
import type { Sources } from '../kernel-files.js';
import { family } from './types.js';

type Vcpu = Args<'guest-set-vcpus'>['vcpus'][number];
type Block = Args<'guest-set-memory-blocks'>['mem-blks'][number];
type BlockResponse = Returns<'guest-set-memory-blocks'>[number];

export function hardwareHandlers({ sysRoot }: Sources) {
  const cpus = join(sysRoot, 'devices/system/cpu');
  const memory = join(sysRoot, 'devices/system/memory');
  return family({
    'guest-get-vcpus': () => numbered(cpus, 'cpu').map((id) => vcpu(`${cpus}/cpu${id}/`, id)),
    'guest-set-vcpus'({ vcpus }) {
      let done = 0;
      for (const wanted of vcpus) {
        try {
          setVcpu(`${cpus}/cpu${wanted['logical-id']}/`, wanted);
        } catch (error) {
          // As in qemu-ga: an error only if nothing was done; otherwise the count tells.
          if (done === 0 || !(error instanceof RemoteError)) throw error;
          return done;
        }
        done++;
      }
      return done;
    },
    'guest-get-memory-blocks'() {
      const found = memoryBlocks(memory);
      if (found?.length === 0) refuse('guest reported zero memory blocks!');
      return (found ?? []).map((id) => memoryBlock(`${memory}/memory${id}/`, id));
    },
    'guest-set-memory-blocks': (args) => args['mem-blks'].map((wanted) => setMemoryBlock(memory, wanted)),
    'guest-get-memory-block-info'() {
      openFolder(`${memory}/`);
      try {
        return { size: BigInt(`0x${readFileSync(join(memory, 'block_size_bytes'), 'utf8').trim()}`) };
      } catch (error) {
        return refuse(`open sysfs file "block_size_bytes": ${errnoText(error)}`);
      }
    },
  });
}

/** The numbers N of the entries `PREFIXN` of a folder, rising. */
function numbered(folder: string, prefix: string): readonly number[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    return refuse(`failed to list entries: ${folder}: ${errnoText(error)}`);
  }
  const pattern = new RegExp(`^${prefix}(\\d+)$`);
  return names
    .flatMap((name) => pattern.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

function openFolder(path: string): void {
  try {
    if (!statSync(path).isDirectory()) throw Object.assign(new Error(path), { code: 'ENOTDIR' });
  } catch (error) {
    refuse(`open("${path}"): ${errnoText(error)}`);
  }
}

/** Undefined for a processor that cannot be switched: it has no such file. */
function onlineOf(path: string): boolean | undefined {
  openFolder(path);
  let text: string;
  try {
    text = readFileSync(`${path}online`, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    return refuse(`open("${path}/online"): ${errnoText(error)}`);
  }
  if (text === '') refuse(`pread("${path}/online"): unexpected EOF`);
  return !text.startsWith('0');
}

function vcpu(path: string, id: number): Returns<'guest-get-vcpus'>[number] {
  const online = onlineOf(path);
  return { 'logical-id': id, online: online ?? true, 'can-offline': online !== undefined };
}

function setVcpu(path: string, { 'logical-id': id, online: wanted }: Vcpu): void {
  const online = onlineOf(path);
  if (online === undefined && !wanted) refuse(`logical processor #${id} can't be offlined`);
  if (online === undefined || online === wanted) return;
  try {
    writeFileSync(`${path}online`, wanted ? '1' : '0', { flag: 'r+' });
  } catch (error) {
    refuse(`pwrite("${path}/online"): ${errnoText(error)}`);
  }
}

/** Undefined on a kernel without memory blocks. */
function memoryBlocks(memory: string): readonly number[] | undefined {
  try {
    statSync(memory);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    refuse(`Can't open directory"/sys/devices/system/memory/": ${errnoText(error)}`);
  }
  return numbered(memory, 'memory');
}

function memoryBlock(path: string, id: number): Returns<'guest-get-memory-blocks'>[number] {
  const state = readIfThere(`${path}state`, 'state');
  if (state === undefined) return { 'phys-index': id, online: true, 'can-offline': false };
  const removable = readIfThere(`${path}removable`, 'removable');
  return {
    'phys-index': id,
    online: state.startsWith('online'),
    'can-offline': removable !== undefined && !removable.startsWith('0'),
  };
}

function readIfThere(path: string, name: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    return refuse(`open sysfs file "${name}": ${errnoText(error)}`);
  }
}

function setMemoryBlock(memory: string, { 'phys-index': id, online: wanted }: Block): BlockResponse {
  const failed = (response: BlockResponse['response'], error: unknown): BlockResponse => ({
    'phys-index': id,
    response,
    'error-code': errnoNumber(error),
  });
  const path = `${memory}/memory${id}`;
  try {
    readdirSync(memory);
  } catch (error) {
    return failed(isErrno(error, 'ENOENT') ? 'operation-not-supported' : 'operation-failed', error);
  }
  try {
    readdirSync(path);
  } catch (error) {
    return failed(isErrno(error, 'ENOENT') ? 'not-found' : 'operation-failed', error);
  }
  let online: boolean;
  try {
    online = readFileSync(`${path}/state`, 'utf8').startsWith('online');
  } catch (error) {
    // A block without a state is always on.
    if (!isErrno(error, 'ENOENT')) return failed('operation-failed', error);
    if (!wanted) return failed('operation-not-supported', error);
    online = true;
  }
  if (online !== wanted) {
    try {
      writeFileSync(`${path}/state`, wanted ? 'online' : 'offline', { flag: 'r+' });
    } catch (error) {
      return failed('operation-failed', error);
    }
  }
  return { 'phys-index': id, response: 'success' };
}
