// The agent goes by mount points, and may see others there than we do: in a container, in a mount namespace of one's own.
import type { FreezeReport } from '../consistency.js';
import { CutError } from '../errors.js';

export interface SeenFilesystem {
  readonly mountpoint: string;
  /** Node as mountinfo has it. */
  readonly source: string;
  /** `MAJOR:MINOR`. */
  readonly device: string;
}

/** Throws a CutError if the agent holds another filesystem at one of the mount points than the one that is meant. */
export function refuseOthers({ filesystems }: FreezeReport, meant: readonly SeenFilesystem[]): void {
  const held = new Set(
    filesystems.filter(({ concerned, held: how }) => concerned || how === 'read-only').map(({ device }) => device),
  );
  const other = meant.find(({ device }) => !held.has(device));
  if (other === undefined) return;
  const { mountpoint, source, device } = other;
  throw new CutError(
    'E_CUT',
    `expected the agent to hold ${source} (${device}) at ${mountpoint}, found another filesystem there: it is in another mount namespace`,
  );
}
