// Processors and memory blocks, shown and switched on and off (hot-plug).
import * as v from 'valibot';
import { command, int, members, noArgs, uint64 } from './command.js';

const vcpu = { 'logical-id': int, online: v.boolean(), 'can-offline': v.optional(v.boolean()) };
const block = { 'phys-index': uint64, online: v.boolean(), 'can-offline': v.optional(v.boolean()) };

export const vcpuCommands = {
  'guest-get-vcpus': command({
    since: '1.5',
    args: noArgs,
    returns: v.array(v.object(vcpu)),
  }),
  /** Returns how many from the front were done. It is an error only if the first one failed. */
  'guest-set-vcpus': command({
    since: '1.5',
    args: members({ vcpus: v.array(members(vcpu)) }),
    returns: int,
  }),
} as const;

export const memoryCommands = {
  'guest-get-memory-blocks': command({
    since: '2.3',
    args: noArgs,
    returns: v.array(v.object(block)),
  }),
  /** One answer for each block asked for; `error-code` is an errno. */
  'guest-set-memory-blocks': command({
    since: '2.3',
    args: members({ 'mem-blks': v.array(members(block)) }),
    returns: v.array(
      v.object({
        'phys-index': int,
        response: v.picklist(['success', 'not-found', 'operation-not-supported', 'operation-failed']),
        'error-code': v.optional(int),
      }),
    ),
  }),
  /** `size`: bytes of one block. */
  'guest-get-memory-block-info': command({
    since: '2.3',
    args: noArgs,
    returns: v.object({ size: int }),
  }),
} as const;
