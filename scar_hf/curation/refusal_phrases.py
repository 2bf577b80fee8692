"""Patterns of phrases that refuse, deflect or say nothing, for sentences normalised by `refusals`."""

import re

REFUSAL, DEFLECTION, EMPTY_PHRASE, AI_DISCLAIMER = "refusal", "deflection", "empty phrase", "AI disclaimer"


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


# Introductory words before the main point of a sentence.
LEAD = re.compile(
    _any(
        r"(?:oh no|oh|well|hmm*|umm*|no(?=[,.!])|ok|okay|hello(?: there)?|hi(?: there)?|hey|look|let me be clear"
        r"|again)\b[,.:!]* ",
        r"(?:(?:i am|we are) )?(?:so )?sorry\b(?: (?:that |to hear (?:that |about )?)?you[^.]*?, but\b)?(?:,? (?:mate|dave"
        r"|friend|sir|to say|to hear that|about that|for that))*",
        r"(?:i|we) (?:must )?apologi[sz]e\b(?: for (?:the|any|my) [\w ]*)?",
        r"(?:my |our )?apologies\b(?: for (?:the|any|my) [\w ]*)?",
        r"(?:i|we) (?:am|are) afraid\b(?! of\b)",
        r"(?:i|we) regret(?: to (?:inform|say|tell)(?: you)?)?\b",
        r"(?:i|we) (?:do |can |completely |fully |would )?(?:understand|appreciate|know|see|love|like|wish|respect"
        r"|realize)\b[^.]*?,? but\b",
        r"(?:thank you|thanks)\b[^.,!]*,? but\b",
        r"as a (?:responsible|helpful|safe)(?: and \w+)? (?:assistant|model|chatbot),",
        r"(?:while|due to|because of|given) [^,.]{1,80}, (?=(?:i|we)\b)",
        r"it (?:looks|seems|sounds) (?:like|as if) [^.]{1,120}?, but\b",
        r"i must (?:emphasi[sz]e|clarify|note|stress|inform you|tell you|say)(?: that)?\b",
        r"to be clear,",
        r"(?:but|and|however|that)\b,?(?= (?:i|we|it|as|this|that|your|my|you|there|the)\b)",
        r"[,;:!.–—-]+ ?(?=\w)",
    )
    + r" *"
)

_CANNOT = r"(?:i|we) (?:must |have to )?" + _any(
    r"cannot(?: and)?",
    r"will not(?: be able to)?",
    r"could not",
    r"do not(?: have (?:the (?:ability|capability|capacity)|permission) to| feel comfortable)?",
    r"refuse to",
    r"decline to",
    r"(?:am|are) unable to",
    r"(?:am|are) not (?:\w+ )?(?:able|allowed|permitted|programmed|designed|authori[sz]ed|equipped|capable|comfortable"
    r"|willing|going|in a position|prepared)(?: to| of| with)?",
)
_NOT_HELPING = r"(?! (?:but|myself|it|wonder\w*|notic\w*|think\w*|feel\w*))"
# Actions that a response may refuse to perform.
_SERVE = _any(
    rf"(?:help|assist)(?:ing)?\b{_NOT_HELPING}",
    r"(?:fulfil+|comply|facilitate|condone|endorse|promote|engage in|engage with|participate in|take part in|provide|generate"
    r"|create|produce)\b",
    r"(?:providing|generating|creating|producing|writing|sharing|answering|discussing|giving|promoting|engaging in"
    r"|supporting)\b",
    r"(?:answer|respond to|discuss|address|complete|process|perform|accommodate|carry out|handle|do|write|share|support"
    r"|encourage) (?:that|this|it|your?|such|any|these|those|the)\b",
    r"(?:answer|discuss|write) (?:questions|topics|an?|explicit|content)\b",
    r"(?:continue this|continue the|take part in|reveal|express (?:\w+ )?(?:opinions?|views?))\b",
    r"give (?:you )?(?:an? |any |the )?(?:answers?|opinions?|legal|medical|financial|advice|information|instructions)\b",
    r"offer (?:advice|an opinion|opinions|any)\b",
    r"(?:open|view|see|access|read|hear|display|play|draw|browse|search|download|watch|listen to|look at)(?: the| your| an?"
    r"| any)? (?:audio|files?|images?|pictures?|photos?|videos?|web\w*|internet|links?|urls?|attachments?|music|sounds?)\b",
)
_SPEAK = (
    r"(?:tell|say|describe|predict|recommend|suggest|advise|comment|determine|verify|confirm|answer|respond|discuss|make|give"
    r"|offer|translate|browse|access|see|open|view|play|search|summari[sz]e|check|send|call|order|book|analy[sz]e|speculate"
    r"|identify|draw|do|complete|process|perform|talk|speak|write|share)\b"
)
_MINE = (
    r"(?:my (?:own )?|our |what i can )(?:programming|guidelines|content|polic\w+|principles|capabilit\w+|abilit\w+|ethic\w+"
    r"|safety|expertise|knowledge|scope|do\b|help\b)"
)
# Always refusals, whatever else the response says.
REFUSES = re.compile(
    _any(
        rf"{_CANNOT} {_SERVE}",
        rf"{_CANNOT}[.!]?$",
        r"it (?:is|would be) (?:not |in)?appropriate (?:for me )?to (?:provide|make|give|answer|discuss|generate|write|create"
        r"|share|comment)\b",
        r"(?:this|that|your|the) (?:request|question|prompt|topic)\b[^.]*?\b(?:violates?|goes against|is against"
        r"|is inappropriate|could be harmful|i decline|i cannot)\b",
        r"(?:this|that|it) is not (?:something|an? (?:request|question|topic|task)) (?:that )?(?:i|we) (?:am|are|can|will"
        r"|could)\b",
        r"(?:this|that|it) is (?:something|an? (?:request|question|topic|task)) (?:that )?(?:i|we) (?:cannot|will not"
        r"|am unable)\b",
        rf"[^.]*?\b(?:against|violates?|outside(?: of)?|beyond)(?: the scope of)? {_MINE}",
        r"(?:i|we) (?:must|have to|need to|will have to) (?:decline|refuse)(?: (?:to|this|that|your)\b|[,.]|$)",
        r"i would (?:rather|prefer) not (?:to )?(?:answer|discuss|say|talk about|share|comment|provide|write)\b",
        r"i do not (?:feel comfortable|think i (?:should|can) (?:answer|help|assist|provide|write|do))\b",
        r"i refuse(?: to answer)?[.!]",
        r"i (?:strongly )?advise against (?:this|that|it)\b.*\bwill not\b",
        rf"(?:cannot|unable to) (?:help|assist)\b{_NOT_HELPING}",
        r"there are (?:some )?things (?:that )?i cannot (?:help|do|say|discuss|assist)\b",
        r"i am only able to [^.]*, so i cannot\b",
    )
)
# Refusals even after a reason.
SURELY_REFUSES = re.compile(
    r"(?:^|\b(?:and|so|that|but) |, )i (?:cannot|will not|am unable to|am not able to|am not willing to) "
    rf"(?:(?:help|assist)\b{_NOT_HELPING}|(?:fulfil+|comply with|provide) (?:this|that|your|such|any|guidance|instructions"
    rf"|information|details|advice)\b|take part in (?:this|that|it)\b)(?!.*\bbut\b)"
)
# Refusals only if the response says nothing else, because people also write them.
PERHAPS_REFUSES = re.compile(rf"(?:[^.]*?\bso )?{_CANNOT} (?:{_SERVE}|{_SPEAK})")
# Direct speech in a story.
NARRATED = re.compile(r"\b(?:said|says|whispered|replied|muttered|cried)\b|, was the\b")

_AI = (
    r"an? (?:(?:large|advanced|neutral|responsible|helpful|objective|text-based|conversational|trained|powerful|friendly"
    r"|mere) )*(?:(?:ai|a\.i\.|artificial intelligence|computer program|machine learning|deep learning"
    r"|natural language processing|virtual|language)[ -]?)+(?:(?:text-based|language|chat|conversational"
    r"|generative)[ -]?)*(?:model|assistant|chatbot|bot|program|system|software|tool|algorithm|entity)?(?: ai"
    r"| \(\w+\))?(?= (?:i|my|it|and|so|developed|trained|created|designed|built|made|without|that|who|with|text-based)\b"
    r"|[,.;:]|$)"
)
DISCLAIMS = re.compile(
    rf"(?:(?:it is important to note|note|remember|i must clarify|keep in mind)(?: that)?,? )?(?:as|being"
    rf"|like) {_AI}(?=.*\b(?:i|my|me)\b)|(?:(?:since|because|although|though|while|given that) )?i am (?:only |merely )?{_AI}"
    rf"|i (?:do not have|have no|cannot)\b[^.]*\bas (?:i am )?{_AI}"
)

_PERSONAL = (
    r"(?:personal (?:\w+ )?|own )(?:opinions?|feelings?|experiences?|beliefs?|preferences?|thoughts|information|data|emotions"
    r"|views?)"
)
_THING = (
    r"\b(?:details?|specifics|information|context|text|code|questions?|passage|article|paragraph|list|table|data|document"
    r"|sentences?|problem|request|image|link|input|examples?|prompt|content|clarification|file|instructions?|background|topic"
    r"|story|essay|poem|message|options|product)\b"
)
_EXPERT = (
    r"(?:doctors?|physicians?|lawyers?|attorneys?|experts?|professionals?|specialists?|research|online|internet"
    r"|search engines?|websites?|sites?|sources?|manual|documentation|account|support)\b"
)
# Asks a question back, refers the reader elsewhere, or does not know.
DEFLECTS = re.compile(
    _any(
        rf"(?:[^.]*?,? (?:so|but|and) |to (?:answer|help|do)[^.]*?, )?{_CANNOT} (?:say|tell|know|answer|find any"
        rf"|find the answer)\b",
        rf"(?:i|we) (?:do|did|could|can) ?not (?:know\b|(?:understand|follow|catch|get) (?:you|your|the|what|that|it)\b"
        rf"|(?:find|see) (?:any|the|that|your) (?:\w+ )?{_THING})",
        r"(?:i|we) (?:do not have|lack|have no)(?: the| any| enough| sufficient| specific| access to| real-time| up-to-date"
        r"| current| a"
        rf"| an| much| further)* (?:access|information|context|details|knowledge|idea|clue|answer|way of knowing|data"
        rf"|{_PERSONAL})\b",
        r"(?:i|we) do not have (?:the )?(?:latest|exact|current|recent) (?:figures|numbers|statistics|prices|results|news)\b",
        r"no (?:idea|clue)\b",
        r"i wish i knew\b",
        r"i am unfamiliar with\b",
        r"it all depends\b",
        r"(?:the|your) question is (?:\w+ )?(?:ambiguous|unclear|vague|incomplete|broad)",
        r"(?:to [^,.]{1,60}, )?i (?:would )?need to (?:know|see)\b",
        r"you will have to (?:look (?:that|it|this) up|find (?:that|it|this) out|check)\b",
        r"it (?:would be|is) best to (?:ask|consult|contact|check with|speak)\b.{0,60}$",
        r"(?:it is )?(?:hard|difficult|impossible) to say[.!]?$",
        rf"feel free to (?:share|send|paste|provide)\b.*(?:{_THING}|\bdraft\b)",
        r"i am not (?:\w+ )?(?:sure|certain|aware|familiar)\b",
        r"(?:my|our) (?:knowledge|training)(?: data)? (?:ends|only goes|is limited|stops|cut)",
        r"(?:\w+ )?(?:could|can|would|will) you (?:\w+ ){0,2}(?:provide|clarify|specify|rephrase|explain|elaborate|give me"
        r"|paste|share (?:your|the|more|it|that)|send (?:me )?(?:more|your|the full)|tell me (?:more|which)|be more specific"
        r"|let me know|restate|repeat)\b",
        rf"(?:provide|share|paste|supply|give me|send|specify|clarify|insert|enter|include|rephrase|tell me|type)\b.*{_THING}",
        r"(?:(?:provide|share|paste|send) it|rephrase|clarify|elaborate|be more specific)\b",
        r"you (?:did not|have not|forgot to) (?:provided?|includ|shared?|attach|given?|specif|past|mention)",
        rf"(?:there (?:is|was|seems to be|are|were) )?no {_THING}.*?\b(?:attached|provided|given|included|your message)\b",
        rf"(?:it (?:seems|looks|appears)(?: like| that)?|i (?:think|believe)) .*?(?:{_THING}.*\b(?:missing|incomplete|cut off"
        rf"|unclear|empty|not)\b|not .*{_THING})",
        r"your (?:question|request|message|input) (?:is|was|seems|appears)(?: to be)? (?:\w+ )?(?:unclear|incomplete|cut off"
        r"|empty|vague|ambiguous)",
        rf"(?:to answer[^,]*, )?(?:i|we) (?:will |would )?(?:need|require|have to see|have to know)\b.*\b(?:more|the|further"
        rf"|additional|your)\b.*{_THING}",
        r"(?:it is|this is|that is) (?:difficult|hard|impossible) to (?:answer|say|tell|help)\b",
        r"(?:that|it) depends on what you\b",
        r"(?:i (?:would )?(?:recommend|suggest|advise)|you (?:may|might|should|can|could|will need to|will have to"
        r"|would have to)(?: want to)?"
        rf"|try|it is best to|consult|contact|check|visit|refer to|see|ask)\b.{{0,60}}\b{_EXPERT}.{{0,60}}$",
        r"google (?:it|that|this)\b",
        rf"let me know (?:what|which|how|more|your)\b.*{_THING}",
        r"(?:how|what) (?:can|may) i (?:help|do)\b",
        r"i am ready to (?:help|assist)\b",
        r"tell me your\b",
    )
)
# Introduces questions asked in place of an answer, and says nothing by itself.
QUESTION = re.compile(r"[^:]*\b(?:you|your|i|it|do)\b[^:]*\?$|(?:what|which|how|why|where|who|when)\b[^:]*\?$")
ASKS_BACK = re.compile(
    r"(?:what|which|how)\b.*\b(?:you(?:r)?\b.*(?:like|want|need|mean|think|topic|looking for)|topic|long should)\b.*\?$"
)

_AGREE = (
    r"(?:sure(?: thing)?|of course|certainly|absolutely|definitely|okay|ok|alright|understood|got it|yes|no problem|great"
    r"|gladly|as requested|noted)"
)
_AGREED = rf"(?:{_AGREE}[,.!]* )*"
EMPTY = re.compile(
    _any(
        rf"(?!yes\W*$)(?:{_AGREE}[,.!]* ?)+",
        rf"{_AGREED}(?:i|we) (?:would|will|can|am|are)(?: be| happy| glad| more than| able| here| delighted| love)*(?: to)? "
        r"(?:help|assist|do that|do it)\b.{0,60}",
        rf"{_AGREED}(?:here (?:is|are)|below (?:is|are)|the following|this is)\b[^.]{{0,100}}:",
        rf"{_AGREED}here you (?:go|are)[!.:]*",
        r"(?:the )?(?:answer|response|output|solution|explanation):",
        r"(?:that is |what )?(?:an? )?(?:great|good|excellent|interesting|fascinating|important) (?:question|point|choice"
        r"|idea)[!.]*",
        r"(?:i )?(?:hope|trust) (?:this|that|it|you)\b.{0,60}",
        r"(?:thank you|thanks) for (?:your|the|reaching|asking|contacting|sharing)\b.{0,80}",
        r"you are (?:most )?welcome\b.{0,40}",
        r"(?:(?:and )?(?:let me know|feel free|do not hesitate)|if (?:you|there|not)\b)(?=.*\b(?:questions?|else|help"
        r"|assist\w*|need|know|reach|ask|clarif\w+)\b).{0,120}",
        r"(?:is there )?(?:anything|something) else\b.{0,60}",
        r"(?:always )?(?:happy|glad|pleased) (?:to help|i could|to assist|to be of)\b.{0,40}",
        r"good luck\b.{0,40}|have an? (?:nice|great|good|wonderful) (?:day|evening|one|time)\b.{0,20}",
        rf"{_AGREED}let us (?:get started|begin|start|dive in)[!.]*|how are you(?: doing)?(?: today)?\?",
        r"i (?:will|can) (?:do (?:that|this|it)|help you with that)[!.]*",
        rf"{_AGREED}(?:find the \w+ below[.!]*|here it is[:.!]*)",
        r"excellent[!.]*|let me think(?: about (?:that|this|it))?[.!]*",
    )
)
# Says nothing, but may be the requested answer, such as a translation.
NEUTRAL = re.compile(
    r"(?:hello|hi|hey|greetings|good (?:morning|day|evening)|thank you|thanks)(?: there| so much| very much)?[!.,]*"
    r"|(?:i need to|let me) (?:stop|be)\b.{0,40}"
)

# Turns from a reservation to the answer, unless it refers the reader elsewhere.
TURN = re.compile(r"\b(?:but|however|though|although|that said)\b[, ]*(?P<after>.*)")
NO_ANSWER = re.compile(
    r"\b(?:i am here|i can (?:help|assist|offer|try)|i would (?:be|recommend|suggest|encourage|advise)|(?:happy|glad|love) to"
    r"|if you|let me know"
    rf"|feel free|other (?:questions|topics|ways)|{_EXPERT}|reach out|seek|could you|can you|i (?:can)?not|i (?:do|will|need))"
)

# Fixed openings in other languages.
FOREIGN = (
    (
        REFUSAL,
        re.compile(
            _any(
                r"(?:es )?tut mir (?:sehr )?leid,? (?:aber|doch) (?:ich|dabei|das|damit|hierbei|diese)\b.{0,30}?\b(?:kann"
                r"|darf)\b",
                r"(?:leider )?kann ich (?:ihnen|dir) (?:dabei|damit|hierbei) (?:leider )?nicht helfen",
                r"(?:je suis )?(?:vraiment )?désolée?,? (?:mais )?je ne (?:peux|suis) pas",
                r"lo siento,? (?:pero )?no puedo\b",
                r"(?:mi dispiace|spiacente),? (?:ma )?non posso\b",
                r"(?:desculpe|sinto muito|lamento),? (?:mas )?não posso\b",
                r"(?:het )?spijt me,? (?:maar )?(?:daar|dat|ik|hier)\b.{0,20}\b(?:kan|mag)\b.{0,30}\bniet\b",
                r"(?:很)?(?:抱歉|对不起|對不起)[，,]?(?:但)?我(?:不能|无法|無法|不可以)",
                r"申し訳(?:ありません|ございません)が、.{0,20}(?:お答え|できません|お手伝い)",
                r"(?:извините|к сожалению|простите),? (?:но )?я не (?:могу|в состоянии)",
            )
        ),
    ),
    (
        AI_DISCLAIMER,
        re.compile(
            _any(
                r"als (?:ein )?(?:großes )?(?:ki|künstliche intelligenz)(?:-|\b).{0,30}?\b(?:ich|mir)\b",
                r"als (?:ki-)?sprachmodell\b",
                r"en tant qu(?:e |')(?:grand )?(?:modèle (?:de langage|linguistique)|ia\b|intelligence artificielle)",
                r"como (?:un |um )?(?:gran |grande )?(?:modelo de (?:lenguaje|linguagem)|ia\b|inteligencia artificial"
                r"|inteligência artificial)",
                r"(?:come|in quanto) (?:un )?(?:modello (?:di linguaggio|linguistico)|ia\b|intelligenza artificiale)",
                r"als (?:een )?(?:ai|taalmodel)\b.{0,30}?\b(?:ik|mijn)\b",
                r"(?:作为|作為)(?:一个|一個|一名|一款)?(?:ai|人工智能|人工智慧|大型?语言模型|语言模型|語言模型).{0,12}[，,]",
                r"(?:私は)?(?:ai|人工知能)(?:言語モデル|アシスタント)?(?:として|ですので|なので)",
                r"как (?:большая )?(?:языковая модель|искусственный интеллект|ии\b)",
            )
        ),
    ),
)
