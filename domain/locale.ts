/**
 * Language tags in the one form of RFC 5646 §2.1.1: hyphens, `de-DE`, `zh-Hans-CN`. Only the form is checked, not which languages
 * exist: a runtime's list of them changes with its version, and a device's tag must not.
 */
const languageTag = new RegExp(
  [
    '^[a-z]{2,3}(?:-[a-z]{3}){0,3}', // language, with extended ones; longer ones were never registered
    '(?:-[a-z]{4})?', // script
    '(?:-(?:[a-z]{2}|[0-9]{3}))?', // region
    '(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*', // variants
    '(?:-[a-wyz0-9](?:-[a-z0-9]{2,8})+)*', // extensions
    '(?:-x(?:-[a-z0-9]{1,8})+)?$', // private use
  ].join(''),
);
const maxLength = 35;

/** Codes that old Android and Java report, with their successors in the IANA registry of language subtags. */
const renamedLanguages: Record<string, string> = { iw: 'he', in: 'id', ji: 'yi', jw: 'jv', mo: 'ro' };

/** The one form of a language tag that may come with hyphens or underscores in any case; undefined for any other text. */
export function canonicalLocale(text: string): string | undefined {
  const tag = text.replaceAll('_', '-').toLowerCase();
  if (tag.length > maxLength || !languageTag.test(tag)) return undefined;
  const [language = '', ...subtags] = tag.split('-');
  let isAfterSingleton = false;
  const shown = subtags.map((subtag) => {
    isAfterSingleton ||= subtag.length === 1;
    if (isAfterSingleton) return subtag;
    if (subtag.length === 2) return subtag.toUpperCase();
    return /^[a-z]{4}$/.test(subtag) ? subtag[0]!.toUpperCase() + subtag.slice(1) : subtag;
  });
  return [renamedLanguages[language] ?? language, ...shown].join('-');
}
