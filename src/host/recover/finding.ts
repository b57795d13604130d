// What `recover` found, and what became of it: facts for programs, one sentence for people, commands to type.

type FindingKind =
  | 'guest-held'
  | 'set-unfinished'
  | 'set-unreadable'
  | 'set-busy'
  | 'set-commit'
  | 'set-revert'
  | 'set-delete'
  | 'set-left'
  | 'backup-unfinished'
  | 'restore-unfinished'
  | 'base-written'
  | 'image-missing'
  | 'node-left'
  | 'job-left'
  | 'file-left'
  | 'overlay-unknown'
  | 'folder-unknown'
  | 'vm-busy'
  | 'vm-unreachable'
  | 'vm-failed';

/**
 * done     put right
 * planned  would be put right (--dry-run)
 * yours    only a person can decide it: `commands` says what to type
 * busy     somebody is at it, or it cannot be asked now: try again later
 * failed   putting it right failed: `did` says why
 */
export type FindingStatus = 'done' | 'planned' | 'yours' | 'busy' | 'failed';

export interface Finding {
  readonly vm: string;
  readonly set?: string;
  readonly kind: FindingKind;
  readonly status: FindingStatus;
  /** One sentence: what was found. */
  readonly found: string;
  /** One sentence: what was done about it, would be, or has to be. */
  readonly did: string;
  readonly commands: readonly string[];
  /** The guest may be held, and nobody confirmed that it is thawed. */
  readonly thawUnconfirmed?: boolean;
}

export type NewFinding = Omit<Finding, 'vm' | 'status' | 'commands'> & { readonly commands?: readonly string[] };
