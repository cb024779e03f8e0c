//! Element names that matter for text, as one byte each.

/// Defines [`Tag`] and its lookup from one list of names.
macro_rules! tags {
    ($($variant:ident $name:literal,)*) => {
        /// An element's name; [`Tag::Other`] for those without a rule here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Tag {
            /// Not an element: a run of characters.
            Text,
            /// An element that is treated as inline and has no rule of its own.
            Other,
            $(#[doc = $name] $variant,)*
        }

        impl Tag {
            /// Returns the tag of a lower-case `name`.
            pub(super) fn from_name(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

tags! {
    A "a", Abbr "abbr", Address "address", Article "article", Aside "aside", Audio "audio", B "b", Base "base",
    Blockquote "blockquote", Body "body", Br "br", Button "button", Canvas "canvas", Caption "caption",
    Center "center", Cite "cite", Code "code", Col "col", Dd "dd", Details "details", Dialog "dialog", Div "div",
    Dl "dl", Dt "dt", Em "em", Embed "embed", Fieldset "fieldset", Figcaption "figcaption", Figure "figure",
    Font "font", Footer "footer", Form "form", H1 "h1", H2 "h2", H3 "h3", H4 "h4", H5 "h5", H6 "h6",
    Head "head", Header "header", Hgroup "hgroup", Hr "hr", Html "html", I "i", Iframe "iframe", Img "img",
    Input "input", Label "label", Legend "legend", Li "li", Link "link", Main "main", Map "map", Math "math",
    Menu "menu", Meta "meta", Nav "nav", Noembed "noembed", Noframes "noframes", Noscript "noscript",
    Object "object", Ol "ol", Optgroup "optgroup", Option "option", P "p", Picture "picture", Plaintext "plaintext",
    Pre "pre", Rp "rp", Rt "rt", S "s", Script "script", Search "search", Section "section", Select "select",
    Small "small", Source "source", Span "span", Strong "strong", Style "style", Summary "summary", Svg "svg",
    Table "table", Tbody "tbody", Td "td", Template "template", Textarea "textarea", Tfoot "tfoot", Th "th",
    Thead "thead", Time "time", Title "title", Tr "tr", Track "track", U "u", Ul "ul", Video "video",
    Wbr "wbr", Xmp "xmp",
}

/// How the characters inside an element are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Tags and references.
    Data,
    /// References, no tags.
    Rcdata,
    /// Neither.
    Raw,
    /// Neither, to the end of the page.
    Plain,
}

impl Tag {
    /// Whether it has no content and no end tag.
    pub(super) fn is_void(self) -> bool {
        matches!(
            self,
            Self::Base
                | Self::Br
                | Self::Col
                | Self::Embed
                | Self::Hr
                | Self::Img
                | Self::Input
                | Self::Link
                | Self::Meta
                | Self::Source
                | Self::Track
                | Self::Wbr
        )
    }

    /// How its content is read, without scripting.
    pub(super) fn content(self) -> Content {
        match self {
            Self::Title | Self::Textarea => Content::Rcdata,
            Self::Script
            | Self::Style
            | Self::Iframe
            | Self::Noembed
            | Self::Noframes
            | Self::Xmp => Content::Raw,
            Self::Plaintext => Content::Plain,
            _ => Content::Data,
        }
    }

    /// Whether its start tag ends an open `p`: section 13.2.6.4.7.
    pub(super) fn closes_p(self) -> bool {
        self.is_heading()
            || matches!(
                self,
                Self::Address
                    | Self::Article
                    | Self::Aside
                    | Self::Blockquote
                    | Self::Center
                    | Self::Details
                    | Self::Dialog
                    | Self::Div
                    | Self::Dl
                    | Self::Dt
                    | Self::Dd
                    | Self::Fieldset
                    | Self::Figcaption
                    | Self::Figure
                    | Self::Footer
                    | Self::Form
                    | Self::Header
                    | Self::Hgroup
                    | Self::Hr
                    | Self::Li
                    | Self::Main
                    | Self::Menu
                    | Self::Nav
                    | Self::Ol
                    | Self::P
                    | Self::Plaintext
                    | Self::Pre
                    | Self::Search
                    | Self::Section
                    | Self::Summary
                    | Self::Table
                    | Self::Ul
                    | Self::Xmp
            )
    }

    /// Whether it stands on lines of its own.
    pub(super) fn is_block(self) -> bool {
        self.closes_p()
            || matches!(
                self,
                Self::Body
                    | Self::Caption
                    | Self::Html
                    | Self::Legend
                    | Self::Optgroup
                    | Self::Option
                    | Self::Tbody
                    | Self::Td
                    | Self::Tfoot
                    | Self::Th
                    | Self::Thead
                    | Self::Title
                    | Self::Tr
            )
    }

    /// Whether it is `h1` to `h6`.
    pub(super) fn is_heading(self) -> bool {
        matches!(self, Self::H1 | Self::H2 | Self::H3 | Self::H4 | Self::H5 | Self::H6)
    }

    /// Whether a search for an open element stops here: section 13.2.4.2.
    pub(super) fn is_scope(self) -> bool {
        matches!(
            self,
            Self::Caption
                | Self::Html
                | Self::Table
                | Self::Td
                | Self::Th
                | Self::Object
                | Self::Template
                | Self::Button
        )
    }

    /// Whether it holds something that is not the page's text: its end tag ends whatever was left open inside.
    pub(super) fn is_embedded(self) -> bool {
        matches!(
            self,
            Self::Audio
                | Self::Canvas
                | Self::Map
                | Self::Math
                | Self::Noscript
                | Self::Picture
                | Self::Select
                | Self::Svg
                | Self::Video
        )
    }

    /// Whether it only belongs to a table.
    pub(super) fn is_table_part(self) -> bool {
        matches!(
            self,
            Self::Caption
                | Self::Table
                | Self::Tbody
                | Self::Td
                | Self::Tfoot
                | Self::Th
                | Self::Thead
                | Self::Tr
        )
    }
}
