// What the host tool prints with --json, read strictly: every test that runs the tool is a test of its results' schemas.
import * as v from 'valibot';
import { failureSchema } from '../../src/cli/bridge/results/failure.js';
import { resultSchemas, type ResultName } from '../../src/cli/bridge/results/results.js';

/**
 * The last line of `stdout`, checked by the schema of the command that `words` call, or by that of a failure; undefined if
 * it is no object. Throws an Error that names the member that is not as the schema says.
 */
export function readResult(words: readonly string[], stdout: string): Record<string, unknown> | undefined {
  const last = stdout.trim().split('\n').at(-1) ?? '';
  if (!last.startsWith('{')) return undefined;
  const value = JSON.parse(last) as Record<string, unknown>;
  const name = 'error' in value && Object.keys(value).length === 1 ? undefined : resultOf(words);
  checkResult(name, value);
  return value;
}

/** `undefined`: a failure. */
export function checkResult(name: ResultName | undefined, value: unknown): void {
  const parsed = v.safeParse(name === undefined ? failureSchema : resultSchemas[name], value);
  if (parsed.success) return;
  const issues = parsed.issues.map((issue) => `${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  throw new Error(`${name ?? 'a failure'}: the result is not as its schema says: ${issues.join('; ')}`);
}

/** Which result a command line has. Throws an Error if there is no such command. */
export function resultOf(words: readonly string[]): ResultName {
  const isGroup = (word = ''): boolean => word === 'snapshot' || word === 'backup';
  const at = words.findIndex((word) => isGroup(word) || word in resultSchemas);
  const command = isGroup(words[at]) ? `${words[at] ?? ''} ${words[at + 1] ?? ''}` : (words[at] ?? '');
  const special = ['--check', '--once', '--in-place', '--start', '--dry-run']
    .filter((word) => words.includes(word))
    .map((word) => `${command} ${word}`);
  const name = [...special, command].find((each): each is ResultName => each in resultSchemas);
  if (name === undefined) throw new Error(`no command with a result: ${words.join(' ')}`);
  return name;
}
