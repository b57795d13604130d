// Prints the findings of --check-config for people.
import { packageHint } from '../../agent/tools.js';
import type { ConfigurationCheck } from './check-config.js';

export function describeCheck(check: ConfigurationCheck): string {
  const { files, used, ignored, channel, freezer, hooks, policy, refusedByPolicy, missingPrograms } = check;
  const there = ({ found }: { readonly found: boolean }): string => (found ? '' : ' (not there)');
  const at = ({ file, line }: { readonly file: string; readonly line?: number }): string =>
    line === undefined ? file : `${file}:${line}`;
  return [
    section(
      'read',
      files.map((one) => `${one.file}${there(one)}`),
    ),
    section(
      'used of the distribution',
      used.map((one) => `${at(one)}: ${one.setting}: ${one.options.join(' ')}`),
    ),
    section(
      'IGNORED',
      ignored.map((one) => `${at(one)}: ${one.setting}: ${one.why}`),
    ),
    section('channel', [[channel.method, channel.path].join(' ').trimEnd() + there(channel)]),
    section('freezer', [`${freezer.path}${there(freezer)}`]),
    section(
      'hooks',
      hooks.map(({ path, verdict, why, doubt }) => {
        const words = {
          runs: 'runs',
          refuses: 'REFUSES every freeze',
          lowers: 'not run, LOWERS every freeze',
          'switched-off': 'not run',
          'left-to-hook': 'left to the hook',
        } as const;
        return [`${path}: ${words[verdict]}`, why, doubt].filter((part) => part !== undefined).join(': ');
      }),
    ),
    section(
      `refused to the host by policy=${policy}, and not by qemu-ga (consoles and \`qm guest exec\` need them; policy=full or also-allow= in [bridge] allows them)`,
      refusedByPolicy.length === 0 ? [] : [refusedByPolicy.join(', ')],
    ),
    section(
      'MISSING programs',
      missingPrograms.map(({ program, commands }) => `${program}${packageHint(program)}: ${commands.join(', ')}`),
    ),
    hooks.some(({ verdict }) => verdict === 'runs')
      ? 'A hook that ends with another code than 0 refuses a freeze. What it will be is known only by running it:\n  HOOK freeze; echo $?; HOOK thaw\n'
      : '',
  ].join('');
}

const section = (title: string, lines: readonly string[]): string =>
  lines.length === 0 ? '' : `${title}:\n${lines.map((line) => `  ${line}\n`).join('')}`;
