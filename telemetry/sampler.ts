import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';
import type { Environment } from '../domain/settings.ts';

/**
 * By `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; where they say nothing that is known, everything is kept.
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
export function chooseSampler(env: Environment): { sampler: Sampler; problem?: string } {
  const { OTEL_TRACES_SAMPLER: name = 'parentbased_always_on', OTEL_TRACES_SAMPLER_ARG: argument = '1' } = env;
  const ratio = Number(argument);
  const isRatio = argument.trim() !== '' && ratio >= 0 && ratio <= 1;
  const byRatio = () => new TraceIdRatioBasedSampler(isRatio ? ratio : 1);
  const problem =
    name.endsWith('traceidratio') && !isRatio ? { problem: 'OTEL_TRACES_SAMPLER_ARG must be from 0 to 1' } : {};
  switch (name) {
    case 'always_on':
      return { sampler: new AlwaysOnSampler() };
    case 'always_off':
      return { sampler: new AlwaysOffSampler() };
    case 'traceidratio':
      return { sampler: byRatio(), ...problem };
    case 'parentbased_always_on':
    case '':
      return { sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }) };
    case 'parentbased_always_off':
      return { sampler: new ParentBasedSampler({ root: new AlwaysOffSampler() }) };
    case 'parentbased_traceidratio':
      return { sampler: new ParentBasedSampler({ root: byRatio() }), ...problem };
    default:
      return {
        sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
        problem: 'OTEL_TRACES_SAMPLER is none of those that are known',
      };
  }
}
