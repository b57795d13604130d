// Judges what a cut taken during a session is worth, and why: the one place that turns facts into a consistency level
// (src/freeze/README.md, "What a level means"). Pure. A level is never higher than what its evidence proves.
import {
  lowestLevel,
  satisfies,
  type ConsistencyLevel,
  type DiskRef,
  type FilesystemReport,
  type WriterReport,
} from '../../consistency.js';
import type { SessionOutcome } from '../writers/peer.js';

/** A disk that the request names, as it was found here. */
export interface DiskFacts {
  /** The name that people are told. */
  readonly label: string;
  /** Its nodes in /dev here; empty: this guest has no such disk. */
  readonly devs: readonly string[];
  /** Active swap, among the parts of the disk (or itself) that no mounted filesystem lies on. */
  readonly swap: readonly string[];
  /** Among the same, those whose write counters stood still. */
  readonly unwritten: readonly string[];
  /** Among the same, all others. */
  readonly written: readonly string[];
}

export interface VerdictFacts {
  readonly outcome: SessionOutcome;
  readonly error?: string;
  readonly filesystems: readonly FilesystemReport[];
  /** Filesystems that lie partly on disks outside the cut, for people. */
  readonly torn: readonly { readonly what: string; readonly missing: readonly string[] }[];
  /** Filesystems of the cut that came or went after the plan was made. */
  readonly changes: readonly { readonly what: string; readonly reason: string }[];
  readonly writers: readonly WriterReport[];
  /** Writers that speak for no application: nothing of them is a reason for a level. */
  readonly accompanying: readonly WriterReport[];
  /** Hooks that should have run, and may not: they are unsafe, or badly described. */
  readonly unsafeWriters: readonly { readonly what: string; readonly reason: string }[];
  /** Of writers that take part: the paths (`covers`) that the cut leaves out. */
  readonly uncovered: readonly { readonly writer: string; readonly paths: readonly string[] }[];
  /** Undefined: the cut takes all disks. */
  readonly disks: readonly DiskFacts[] | undefined;
  readonly trustPlainHooks: boolean;
  /** As if the requester's provider held what was left to it: what everything else allows. */
  readonly assumeProvider?: boolean;
}

export interface Verdict {
  readonly level: ConsistencyLevel;
  /** One sentence per reason, best first. */
  readonly evidence: readonly string[];
}

interface Reason {
  /** The level this reason allows at most. */
  readonly ceiling: ConsistencyLevel;
  readonly sentence: string;
}

/** The lowest ceiling of all reasons decides. */
export function judge(facts: VerdictFacts): Verdict {
  const early = ended(facts);
  const reasons = early === undefined ? [...filesystemReasons(facts), ...writerReasons(facts)] : [early];
  const level = lowestLevel(
    reasons.map(({ ceiling }) => ceiling),
    'application',
  );
  const bestFirst = [...reasons].sort((a, b) =>
    a.ceiling === b.ceiling ? 0 : satisfies(a.ceiling, b.ceiling) ? -1 : 1,
  );
  return { level, evidence: bestFirst.map(({ sentence }) => sentence) };
}

function ended({ outcome, error }: VerdictFacts): Reason | undefined {
  switch (outcome) {
    case 'ok':
      return undefined;
    case 'failed':
      return { ceiling: 'none', sentence: `nothing was held: ${error ?? 'the attempt failed'}` };
    case 'expired':
      return { ceiling: 'crash', sentence: error ?? 'the guest thawed itself when the lease ended' };
    case 'broken':
      return { ceiling: 'crash', sentence: error ?? 'the freeze was broken' };
  }
}

function filesystemReasons(facts: VerdictFacts): Reason[] {
  const concerned = facts.filesystems.filter((filesystem) => filesystem.concerned);
  const reasons = concerned.map((filesystem) => filesystemReason(filesystem, facts));
  for (const { what, missing } of facts.torn)
    reasons.push({
      ceiling: 'none',
      sentence: `${what} lies on ${missing.join(', ')} too, which is not in the cut: half of it would be missing`,
    });
  for (const { what, reason } of facts.changes) reasons.push({ ceiling: 'crash', sentence: `${what} ${reason}` });
  for (const disk of facts.disks ?? []) reasons.push(...diskReasons(disk, facts.filesystems));
  if (concerned.length === 0 && facts.disks === undefined)
    reasons.push({ ceiling: 'crash', sentence: 'no filesystem mounted read-write is part of the cut' });
  return reasons;
}

function filesystemReason(filesystem: FilesystemReport, { assumeProvider }: VerdictFacts): Reason {
  const { mountpoint, type, held, reason, thaw } = filesystem;
  const name = `${mountpoint} (${type})`;
  switch (held) {
    case 'frozen':
      return {
        ceiling: 'application',
        sentence: thaw === undefined ? `${name} is frozen` : `${name} was frozen, and thawed by us alone`,
      };
    case 'read-only':
      return { ceiling: 'application', sentence: `${name} is mounted read-only` };
    case 'synced':
      return { ceiling: 'application', sentence: `${name}: ${reason ?? 'synced, and not written to since'}` };
    case 'provider':
      return {
        ceiling: assumeProvider === true ? 'application' : 'crash',
        sentence: `${name} was left to its provider: whether that held it is not known here`,
      };
    case 'none':
      return { ceiling: 'crash', sentence: `${name} was not held: ${reason ?? 'unknown'}` };
  }
}

function diskReasons(disk: DiskFacts, filesystems: readonly FilesystemReport[]): Reason[] {
  const { label, devs, swap, unwritten, written } = disk;
  if (devs.length === 0)
    return [
      { ceiling: 'crash', sentence: `disk ${label} is none that this guest knows: what lies on it was not held` },
    ];
  const name = `disk ${label} (${devs.join(', ')})`;
  const has = (parts: readonly string[]): string =>
    parts.every((part) => devs.includes(part)) ? `${name} has` : `${name}: ${parts.join(', ')} has`;
  if (written.length > 0)
    return [{ ceiling: 'crash', sentence: `${has(written)} no mounted filesystem, and may have been written to` }];
  if (unwritten.length > 0)
    return [
      { ceiling: 'application', sentence: `${has(unwritten)} no mounted filesystem, and nothing was written to it` },
    ];
  const onIt = (ref: DiskRef): boolean => ref.dev !== undefined && devs.includes(ref.dev);
  if (filesystems.some(({ disks }) => disks.some(onIt)) || swap.length === 0) return [];
  return [{ ceiling: 'application', sentence: `${name} holds swap alone` }];
}

function writerReasons(facts: VerdictFacts): Reason[] {
  const { writers, accompanying, unsafeWriters, uncovered, trustPlainHooks } = facts;
  const reasons = unsafeWriters.map(({ what, reason }): Reason => ({
    ceiling: 'filesystem',
    sentence: `writer ${what} was not run: ${reason}`,
  }));
  const concerned = writers.filter(({ verdict }) => verdict !== 'not-applicable');
  if (concerned.length === 0 && unsafeWriters.length === 0)
    reasons.push({ ceiling: 'filesystem', sentence: 'no writer speaks for an application of this guest' });
  return [
    ...reasons,
    ...concerned.map((writer) => writerReason(writer, trustPlainHooks)),
    ...concerned.flatMap(({ name, path }) =>
      uncovered
        .filter(({ writer }) => writer === path)
        .map(({ paths }): Reason => ({
          ceiling: 'filesystem',
          sentence: `writer ${name} speaks for ${paths.join(', ')} too, which is not in the cut`,
        })),
    ),
    ...accompanying.flatMap(warning),
  ];
}

/** Told among the evidence, which every host shows, and allows any level. */
function warning({ name, verdict, reason }: WriterReport): Reason[] {
  if (verdict !== 'failed') return [];
  const sentence = `warning: ${name}, which only accompanies, failed: ${reason ?? 'unknown'}`;
  return [{ ceiling: 'application', sentence }];
}

function writerReason(writer: WriterReport, trustPlainHooks: boolean): Reason {
  const { name, verdict, kind, guarantee, reason, required } = writer;
  switch (verdict) {
    case 'verified':
      return {
        ceiling: 'application',
        sentence: `writer ${name} verified ${guaranteeText[guarantee ?? 'held']}`,
      };
    case 'claimed':
      return kind === 'plain' && trustPlainHooks
        ? { ceiling: 'application', sentence: `writer ${name} claimed to hold, and plain hooks are trusted here` }
        : { ceiling: 'filesystem', sentence: `writer ${name} only claimed to hold, nothing verified it` };
    case 'failed':
      return {
        ceiling: 'filesystem',
        sentence: `${required ? 'writer' : 'optional writer'} ${name} failed: ${reason ?? 'unknown'}`,
      };
    case 'not-applicable':
      return { ceiling: 'application', sentence: `writer ${name} has nothing to do here` };
  }
}

const guaranteeText = {
  held: 'that writes are stopped',
  recoverable: 'that its own recovery finds every acknowledged transaction in an atomic cut',
  artefact: 'that what it wrote before is complete',
} as const;
