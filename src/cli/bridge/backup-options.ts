// Options that the commands on a repository of backups share.
import type { Argv } from 'yargs';

export function withRepo<T>(yargs: Argv<T>): Argv<T & { repo: string }> {
  return yargs
    .option('repo', { type: 'string', demandOption: true, describe: 'folder of the repository' })
    .alias('repo', 'from');
}

export interface RepositoryArgs {
  repo: string;
  vm: string | undefined;
  json: boolean;
}

/** Of commands that need no VM to be there. */
export function withRepository<T>(yargs: Argv<T>): Argv<T & RepositoryArgs> {
  return withRepo(yargs)
    .option('vm', { type: 'string', describe: 'name or UUID of the VM, as it was when it was backed up' })
    .option('json', { type: 'boolean', default: false, describe: 'the last line of stdout is one JSON object' });
}

export const runName = {
  type: 'string',
  demandOption: true,
  describe: 'name of the run, its beginning or end, or "latest"',
} as const;
export const runNames = {
  type: 'string',
  array: true,
  default: [] as string[],
  describe: 'names of runs, their beginnings or ends, or "latest"',
} as const;
export const timeout = {
  type: 'number',
  default: 86_400,
  describe: 'seconds for everything',
  group: 'Limits:',
} as const;
export const dryRun = { alias: 'n', type: 'boolean', default: false, describe: 'only say what would be done' } as const;
