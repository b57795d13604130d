// `fsfreeze-snapshot writers lint FILE`: the reasons for which a freeze would not run a hook, or be refused by it, before
// it is installed. Looks only, and starts nothing. What is legal and unwise: advice.ts.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { WriterListing } from '../../consistency.js';
import { describeError, UnreachableError } from '../../errors.js';
import { PLAIN_RANK, type Described } from '../../freeze/writers/description.js';
import {
  describeFile,
  findWriters,
  isIgnoredName,
  listing,
  withDescription,
  type WriterFolder,
} from '../../freeze/writers/folders.js';
import { whyUnsafeFolder } from '../../freeze/writers/safety.js';
import { adviceOn } from './advice.js';
import type { GuestSettings } from './guest-settings.js';
import { interpreterProblem } from './interpreter.js';
import { whatItIs } from './list.js';

const ROOT_UID = 0;

interface Problem {
  readonly why: string;
  /** A plain freeze is refused by it. Otherwise the file is passed over, or the level falls. */
  readonly refuses: boolean;
}

export interface Lint {
  /** Where it lies, or will lie. */
  readonly path: string;
  /** What it is taken for; absent where its description has a mistake. */
  readonly writer?: WriterListing;
  /** Why it would not be run; empty: it would be. */
  readonly problems: readonly Problem[];
  readonly warnings: readonly string[];
}

/** `as`: the folder in which it will lie. Throws an UnreachableError if the file cannot be read. */
export function lintWriter(settings: GuestSettings, file: string, as: string | undefined): Lint {
  const source = resolve(file);
  const text = textOf(source);
  const folder = resolve(as ?? dirname(source));
  const name = basename(source);
  const found = settings.freeze.writerFolders.find(({ path, only }) => path === folder && (only ?? name) === name);
  const described = describeFile(source, existsSync(`${source}.json`));
  const veto = settings.hookFailure === 'refuse' && found?.shipped !== true;
  const faults = as === undefined ? asItLies(found, folder, name) : whereItWillLie(folder, described);
  const broken = interpreterProblem(text);
  const writer = asWriter(described, folder, name);
  const problems = [
    ...passedOver(settings, folder, name, found),
    ...(faults === undefined ? [] : [{ why: faults.why, refuses: faults.refuses && veto }]),
    ...(broken === undefined ? [] : [{ why: broken, refuses: veto && writer?.required !== false }]),
  ];
  return {
    path: join(folder, name),
    ...(writer === undefined ? {} : { writer }),
    problems,
    warnings: described.kind === 'bad' ? [] : adviceOn(text, described, settings.freeze),
  };
}

function textOf(path: string): string {
  try {
    if (statSync(path).isFile()) return readFileSync(path, 'latin1');
  } catch (error) {
    throw new UnreachableError('E_NO_WRITER', `cannot read it: ${describeError(error)}`, { cause: error });
  }
  throw new UnreachableError('E_NO_WRITER', `${path} is not a regular file`);
}

/** What keeps it from being looked at, however well made it is. */
function passedOver(
  { freeze }: GuestSettings,
  folder: string,
  name: string,
  found: WriterFolder | undefined,
): readonly Problem[] {
  const because = (why: string): Problem => ({ why, refuses: false });
  const folders = freeze.writerFolders;
  const names = folders.map(({ path }) => path).join(', ');
  const earlier = folders
    .slice(0, found === undefined ? 0 : folders.indexOf(found))
    .filter(({ only }) => only === undefined || only === name)
    .map(({ path }) => join(path, name))
    .find((path) => path !== join(folder, name) && existsSync(path));
  return [
    ...(found === undefined ? [because(`${folder} is no folder of writers (give --as one of ${names})`)] : []),
    ...(isIgnoredName(name) && found?.only === undefined ? [because('files of such a name are passed over')] : []),
    ...(name.endsWith('.json') ? [because('a file NAME.json describes the writer NAME, and is none')] : []),
    ...(earlier === undefined ? [] : [because(`hidden by ${earlier}`)]),
  ];
}

/** As a freeze would find it. */
function asItLies(found: WriterFolder | undefined, folder: string, name: string): Problem | undefined {
  const alone: WriterFolder = found ?? { path: folder, style: 'bridge' };
  const [writer] = findWriters([alone], { owner: ROOT_UID }).filter((each) => each.name === name);
  if (writer?.problem === undefined) return undefined;
  return { why: writer.problem, refuses: writer.problemKind === 'unsafe' };
}

/** Of root, and executable. */
function whereItWillLie(folder: string, described: Described): Problem | undefined {
  const unsafe = whyUnsafeFolder(folder, ROOT_UID);
  if (unsafe !== undefined) return { why: unsafe, refuses: existsSync(folder) };
  return described.kind === 'bad' ? { why: `bad description: ${described.problem}`, refuses: true } : undefined;
}

function asWriter(described: Described, folder: string, name: string): WriterListing | undefined {
  if (described.kind === 'bad') return undefined;
  const plain = {
    name,
    path: join(folder, name),
    folder: { path: folder, style: 'bridge' },
    kind: 'plain',
    required: true,
    rank: PLAIN_RANK,
    phases: ['freeze', 'thaw'],
  } as const;
  return listing(described.kind === 'plain' ? plain : withDescription(plain, described.description));
}

/** Rows for people. */
export function describeLint({ path, writer, problems, warnings }: Lint): string[] {
  const what = writer === undefined ? 'a writer with a bad description' : whatItIs(writer);
  return [
    path,
    `  ${what}`,
    ...problems.map(
      ({ why, refuses }) => `  NOT RUN: ${why}${refuses ? '; guest-fsfreeze-freeze would be refused' : ''}`,
    ),
    ...warnings.map((warning) => `  warning: ${warning}`),
    ...(problems.length === 0 ? ['  it would be run'] : []),
  ];
}
