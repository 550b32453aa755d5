/** The devices of one run, with everything that is known of them before, and what the run changes about them. */
import type { ProviderName } from '../../domain/device.ts';
import {
  apnsDeviceToken,
  type BehaviourShares,
  type DeviceBehaviour,
  fcmRegistrationToken,
  mixedAudience,
} from '../../simulator/device-tokens.ts';

export interface ChaosDevice {
  externalId: string;
  provider: ProviderName;
  /** Every token that the device has had, the newest last. */
  tokens: { text: string; behaviour: DeviceBehaviour }[];
  isDeleted: boolean;
  /** Registered in mid-send, with a new token or the same: what a provider says of an older registration is void. */
  isRegisteredAgain: boolean;
}

/** Numbers of new tokens begin here, so that none is given twice. */
const newTokenOffset = 1_000_000_000;

export class ChaosDevices {
  readonly name: string;
  readonly #base: number;
  readonly byExternalId = new Map<string, ChaosDevice>();

  constructor(seed: number, run: number, count: number, shares: BehaviourShares) {
    this.name = `chaos-${run}-${seed}`;
    this.#base = run * 10_000_000;
    for (let n = 0; n < count; n++) {
      const provider = n % 2 === 0 ? 'apns' : 'fcm';
      const externalId = `${this.name}-${n}`;
      const device: ChaosDevice = { externalId, provider, tokens: [], isDeleted: false, isRegisteredAgain: false };
      this.#giveToken(device, this.#base + n, mixedAudience(n, seed, shares));
      this.byExternalId.set(externalId, device);
    }
  }

  /** Rows for the import, with the property that makes the audience. */
  *rows(): Generator<object> {
    for (const device of this.byExternalId.values()) yield this.#row(device, { chaos: this.name });
  }

  /** Gives every `step`-th device from `first` on a new, living token. @returns its rows */
  reregister(first: number, step: number): object[] {
    return this.#pick(first, step).map((device, i) => {
      device.isRegisteredAgain = true;
      this.#giveToken(device, newTokenOffset + this.#base + first * 100_000 + i, 'accept');
      return this.#row(device, { chaos: this.name });
    });
  }

  /** Changes properties so that the devices would no longer belong to the audience. @returns their rows */
  change(first: number, step: number): object[] {
    return this.#pick(first, step).map((device) => {
      device.isRegisteredAgain = true;
      return this.#row(device, { chaos: 'elsewhere' });
    });
  }

  /** @returns external ids */
  forget(first: number, step: number): string[] {
    return this.#pick(first, step).map((device) => {
      device.isDeleted = true;
      return device.externalId;
    });
  }

  #pick(first: number, step: number): ChaosDevice[] {
    return [...this.byExternalId.values()].filter((device, n) => n % step === first % step && !device.isDeleted);
  }

  #giveToken(device: ChaosDevice, number: number, behaviour: DeviceBehaviour): void {
    const text =
      device.provider === 'apns' ? apnsDeviceToken(number, behaviour) : fcmRegistrationToken(number, behaviour);
    device.tokens.push({ text, behaviour });
  }

  #row({ externalId, provider, tokens }: ChaosDevice, properties: object): object {
    const platform = provider === 'apns' ? 'ios' : 'android';
    return { external_id: externalId, platform, device_token: tokens.at(-1)!.text, properties };
  }
}
