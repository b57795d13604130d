// What a command prints that failed, in the place of its result.
import * as v from 'valibot';
import { hostCodes, type ErrorCode } from '../../../error-codes.js';
import { exitCodes } from '../exit-codes.js';
import { is, maybe, text } from './meaning.js';

export const exitCodeSchema = is(
  v.picklist(exitCodes.map(({ code }) => code)),
  'the exit code of the program, as the table of exit codes has it',
);

export const errorCodeSchema = is(
  v.custom<ErrorCode>((value) => typeof value === 'string' && Object.hasOwn(hostCodes, value)),
  'stable, for programs: see "Error codes"',
);

export const failureSchema = v.strictObject({
  error: is(
    v.strictObject({
      code: errorCodeSchema,
      message: text('one line for people'),
      exitCode: exitCodeSchema,
      facts: maybe(
        v.record(v.string(), v.unknown()),
        'what the message was made of; which members there are depends on the code. Absent for E_INTERNAL',
      ),
      outcome: maybe(
        v.picklist(['none', 'unknown']),
        'what became of the request that failed: nothing, or nobody knows. Absent for E_INTERNAL',
      ),
    }),
    'what went wrong',
  ),
});

export const problemSchema = v.strictObject({
  error: is(v.strictObject({ code: errorCodeSchema, message: text('one line for people') }), 'what went wrong'),
});
