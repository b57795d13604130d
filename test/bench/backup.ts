// bench -- backup: all that is measured of backups; each part has a name of its own, too.
import { backupOfDomain } from './backup-domain.js';
import { backupOfPlain } from './backup-plain.js';
import { backupOfTree } from './backup-tree.js';
import { backupWrites } from './backup-writes.js';
import type { Row } from './table.js';

export const backupBenches = {
  'backup-plain': backupOfPlain,
  'backup-domain': backupOfDomain,
  'backup-writes': backupWrites,
  'backup-tree': backupOfTree,
} as const;

export async function backup(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const part of Object.values(backupBenches)) rows.push(...(await part()));
  return rows;
}
