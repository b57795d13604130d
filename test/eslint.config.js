// Lint: the type-aware rules that catch a forgotten await (the worst bug here is a forgotten thaw), and the walls between
// the rooms of src/ (house.js).
import { existsSync, readdirSync } from 'node:fs';
import { createNodeResolver, importX } from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';
import { libraries, rooms } from './house.js';

const SOURCES = `${import.meta.dirname}/../src`;
const leaves = readdirSync(SOURCES).filter((name) => name.endsWith('.ts'));
/** A room, or one file of it. */
const place = (name) => (existsSync(`${SOURCES}/${name}.ts`) ? `${name}.ts` : name);

const walls = [
  ...leaves.map((leaf) => ({
    target: `${SOURCES}/${leaf}`,
    from: SOURCES,
    except: leaves,
    message: 'A leaf imports leaves alone.',
  })),
  ...Object.entries(rooms).map(([room, others]) => ({
    target: `${SOURCES}/${room}`,
    from: SOURCES,
    except: [...new Set([...leaves, ...[room, ...others].map(place)])],
    message: `${room} imports itself, leaves${others.map((name) => `, ${name}`).join('')} (test/house.js).`,
  })),
];

/** In each room no library but its own: whoever else wants what one does takes an interface. */
const fence = (files, here) => ({
  files,
  rules: {
    '@typescript-eslint/no-restricted-imports': [
      'error',
      {
        paths: Object.entries(libraries)
          .filter(([, places]) => !places.some((name) => here(name)))
          .map(([name, places]) => ({ name, message: `${name} has its place: ${places.join(', ')} (test/house.js).` })),
      },
    ],
  },
});
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
  {
    files: ['src/**/*.ts'],
    plugins: { 'import-x': importX },
    settings: {
      'import-x/extensions': ['.ts'],
      'import-x/parsers': { '@typescript-eslint/parser': ['.ts'] },
      'import-x/resolver-next': [createNodeResolver({ extensions: ['.ts'], extensionAlias: { '.js': ['.ts'] } })],
    },
    rules: {
      // Written down once, and known before anything runs.
      '@typescript-eslint/naming-convention': [
        'error',
        { selector: 'variable', modifiers: ['destructured'], format: null },
        {
          selector: 'variable',
          modifiers: ['const', 'global'],
          types: ['boolean', 'string', 'number'],
          format: ['UPPER_CASE'],
        },
      ],
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      'import-x/no-restricted-paths': ['error', { zones: walls }],
    },
  },
  fence(['src/**/*.ts'], () => false),
  // The deeper room, and the single file, last: of two that fit a file the later one holds.
  ...Object.keys(rooms)
    .sort((a, b) => a.split('/').length - b.split('/').length)
    .map((room) => fence([`src/${room}/**`], (name) => name === room || room.startsWith(`${name}/`))),
  ...Object.values(libraries)
    .flat()
    .filter((name) => !(name in rooms))
    .map((name) =>
      fence(
        name.endsWith('.ts') ? [`src/${name}`] : [`src/${name}/**`],
        (other) => other === name || name.startsWith(`${other}/`),
      ),
    ),
);
