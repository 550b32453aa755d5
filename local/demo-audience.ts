import { type ProviderName, platforms, usualProvider } from '../domain/device.ts';
import { type DeviceBehaviour, deviceTokens, mixedAudience } from '../simulator/device-tokens.ts';

export interface DemoAudienceOptions {
  devices: number;
  /** Stored as the property `demo` of every device, so that an audience can be exactly these devices. */
  name: string;
  /** The devices take these providers in turn. */
  providers: readonly ProviderName[];
  /** Share of devices whose token is dead, in percent. */
  deadPercent: number;
  /** Share of devices that are refused at first (429, 503) and taken later, in percent. */
  transientPercent: number;
}

const seed = 20;
const countries = ['DE', 'FR', 'GB', 'JP', 'KR', 'US'];

/** The fate of device `n`: the same in every run. */
function demoBehaviour(n: number, options: DemoAudienceOptions): DeviceBehaviour {
  return mixedAudience(n, seed, {
    unregistered: options.deadPercent,
    rateLimitedOnce: options.transientPercent / 2,
    unavailableOnce: options.transientPercent / 2,
  });
}

/** Rows for `POST /v1/devices/import`. */
export function* demoDevices(options: DemoAudienceOptions): Generator<object> {
  for (let n = 0; n < options.devices; n++) {
    const provider = options.providers[n % options.providers.length]!;
    const behaviour = demoBehaviour(n, options);
    yield {
      external_id: `${options.name}-${n}`,
      user_id: `user-${Math.floor(n / 2)}`,
      provider,
      platform: platforms.find((platform) => usualProvider[platform] === provider),
      device_token: deviceTokens[provider](n, behaviour),
      properties: { demo: options.name, country: countries[n % countries.length], visits: n % 100 },
      locale: 'en-US',
    };
  }
}

/** How many devices of the audience are dead, and how many are refused at first. */
export function countDemoBehaviours(options: DemoAudienceOptions): { dead: number; transient: number } {
  let dead = 0;
  let transient = 0;
  for (let n = 0; n < options.devices; n++) {
    const behaviour = demoBehaviour(n, options);
    if (behaviour === 'unregistered') dead++;
    else if (behaviour !== 'accept') transient++;
  }
  return { dead, transient };
}
