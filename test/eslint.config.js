// Lint: the type-aware rules that catch a forgotten await (the worst bug here is a forgotten thaw), and the fences
// between the layers of src/ (README, "The house").
import tseslint from 'typescript-eslint';

const fence = (files, patterns) => ({
  files,
  rules: { '@typescript-eslint/no-restricted-imports': ['error', { patterns }] },
});
const library = (name, where) => ({
  group: [name],
  message: `${name} has one place: ${where}. Take an interface instead.`,
});
const layer = (group, message) => ({ group, message });

const yargs = library('yargs', 'src/cli/');
const chokidar = library('chokidar', 'src/freeze/writer-watch.ts');
const pino = library('pino', 'src/log.ts');
const upward = (...names) =>
  layer(
    names.map((name) => `**/${name}/**`),
    'Imports go down only: cli -> {agent, snapshot, host, testing} -> {freeze, qga, qmp} -> rpc -> {transport, wire}; leaves import nothing of ours.',
  );

const outsideHost = upward('freeze', 'agent', 'cli', 'testing');
const acts = ['commit', 'copy', 'create', 'prune', 'recover', 'watch'];
const room = (name, ...above) =>
  fence(
    [`src/host/${name}/**`],
    [
      yargs,
      chokidar,
      pino,
      outsideHost,
      layer(
        above.map((other) => `**/${other}/**`),
        'The rooms of host/ import downward: recover -> {commit, copy, create, prune, watch} -> guest -> sets -> vm -> images.',
      ),
    ],
  );

export default tseslint.config(
  { ignores: ['dist/**', 'build/**', '**/node_modules/**'] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: { project: ['test/tsconfig.json'], tsconfigRootDir: `${import.meta.dirname}/..` },
    },
    rules: {
      eqeqeq: 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/return-await': ['error', 'always'],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      'no-restricted-syntax': [
        'error',
        { selector: 'ExportDefaultDeclaration', message: 'Named exports only.' },
        { selector: 'ExportAllDeclaration', message: 'Name what is exported.' },
      ],
    },
  },
  { files: ['**/*.js', '**/*.mjs'], extends: [tseslint.configs.disableTypeChecked] },
  { files: ['test/*.config.*'], rules: { 'no-restricted-syntax': 'off' } },
  fence(['src/*.ts'], [yargs, chokidar, layer(['./*/**'], 'A leaf imports nothing of ours.')]),
  fence(
    ['src/wire/**', 'src/transport/**'],
    [yargs, chokidar, pino, upward('rpc', 'qga', 'qmp', 'freeze', 'agent', 'host', 'cli', 'testing')],
  ),
  fence(['src/rpc/**'], [yargs, chokidar, pino, upward('qga', 'qmp', 'freeze', 'agent', 'host', 'cli', 'testing')]),
  fence(['src/qga/**', 'src/qmp/**'], [yargs, chokidar, pino, upward('freeze', 'agent', 'host', 'cli', 'testing')]),
  fence(['src/freeze/**'], [yargs, pino, upward('qga', 'qmp', 'rpc', 'agent', 'host', 'cli', 'testing')]),
  fence(['src/agent/**'], [yargs, chokidar, pino, upward('qmp', 'host', 'cli', 'testing')]),
  fence(['src/host/**'], [yargs, chokidar, pino, outsideHost]),
  // The rooms of host/, from the ground up.
  room('images', 'vm', 'sets', 'guest', ...acts),
  room('vm', 'sets', 'guest', ...acts),
  room('sets', 'guest', ...acts),
  room('guest', ...acts),
  room('commit', 'copy', 'create', 'prune', 'recover', 'watch'),
  room('copy', 'commit', 'create', 'prune', 'recover', 'watch'),
  room('create', 'commit', 'copy', 'prune', 'recover', 'watch'),
  room('prune', 'commit', 'copy', 'create', 'recover', 'watch'),
  room('watch', 'commit', 'copy', 'create', 'prune', 'recover'),
  fence(['src/testing/**'], [yargs, chokidar, pino, upward('freeze', 'agent', 'cli')]),
);
