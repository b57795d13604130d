// What each command prints with --json, as its last line: one schema per command, and the type of it, by which the command
// builds its result. The program parses nothing by them. Tests do, whatever they have the tool print, and RESULTS.md, the
// page for users, is made of them.
import type * as v from 'valibot';
import * as backups from './backups.js';
import { statusSchema, thawSchema, waitSchema, writersSchema } from './guest.js';
import { watchOnceSchema, watchSchema } from './overlay-size.js';
import { recoverSchema } from './recover.js';
import * as sets from './sets.js';

export const resultSchemas = {
  'snapshot create': sets.createSchema,
  'snapshot create --check': sets.createCheckSchema,
  'snapshot list': sets.listSchema,
  'snapshot show': sets.showSchema,
  'snapshot commit': sets.commitSchema,
  'snapshot revert': sets.revertSchema,
  'snapshot delete': sets.deleteSchema,
  'snapshot start-args': sets.startArgsSchema,
  'snapshot copy': sets.copySchema,
  'snapshot prune': sets.pruneSchema,
  'snapshot watch': watchSchema,
  'snapshot watch --once': watchOnceSchema,
  'backup run': backups.runResultSchema,
  'backup run --dry-run': backups.dryRunSchema,
  'backup list': backups.backupListSchema,
  'backup show': backups.backupShowSchema,
  'backup verify': backups.backupVerifySchema,
  'backup restore': backups.backupRestoreSchema,
  'backup restore --start': backups.backupStartSchema,
  'backup restore --in-place': backups.backupInPlaceSchema,
  'backup forget': backups.backupForgetSchema,
  'backup recover': backups.backupRecoverSchema,
  status: statusSchema,
  writers: writersSchema,
  thaw: thawSchema,
  recover: recoverSchema,
  wait: waitSchema,
} as const;

export type ResultName = keyof typeof resultSchemas;

type Read<T> = T extends readonly (infer Item)[]
  ? readonly Read<Item>[]
  : T extends object
    ? { readonly [K in keyof T]: Read<T[K]> }
    : T;

/** What a command prints. */
export type Result<N extends ResultName> = { readonly [K in N]: Read<v.InferOutput<(typeof resultSchemas)[K]>> }[N];
